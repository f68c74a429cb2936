"""What AndroidWorld says of its 116 tasks: complexity, and the first application.

Read off its registry (its repository of February 2026); the server does not tell.
"""

__all__ = ["FACTS"]

_BY_APP: dict[str, dict[str, float]] = {
    "audio recorder": {
        "AudioRecorderRecordAudio": 1.2,
        "AudioRecorderRecordAudioWithFileName": 2.0,
    },
    "broccoli app": {
        "RecipeAddMultipleRecipes": 6.0,
        "RecipeAddMultipleRecipesFromImage": 6.0,
        "RecipeAddMultipleRecipesFromMarkor": 6.0,
        "RecipeAddMultipleRecipesFromMarkor2": 6.0,
        "RecipeAddSingleRecipe": 2.4,
        "RecipeDeleteDuplicateRecipes": 1.0,
        "RecipeDeleteDuplicateRecipes2": 2.4,
        "RecipeDeleteDuplicateRecipes3": 3.4,
        "RecipeDeleteMultipleRecipes": 2.4,
        "RecipeDeleteMultipleRecipesWithConstraint": 4.0,
        "RecipeDeleteMultipleRecipesWithNoise": 3.4,
        "RecipeDeleteSingleRecipe": 1.0,
        "RecipeDeleteSingleWithRecipeWithNoise": 2.0,
    },
    "camera": {
        "CameraTakePhoto": 1.0,
        "CameraTakeVideo": 1.0,
        "OpenAppTaskEval": 1.0,
    },
    "chrome": {
        "BrowserDraw": 2.0,
        "BrowserMaze": 2.0,
        "BrowserMultiply": 2.2,
    },
    "clipper": {
        "SystemCopyToClipboard": 1.0,
    },
    "clock": {
        "ClockStopWatchPausedVerify": 1.0,
        "ClockStopWatchRunning": 1.0,
        "ClockTimerEntry": 1.0,
    },
    "contacts": {
        "ContactsAddContact": 1.2,
        "ContactsNewContactDraft": 1.2,
    },
    "files": {
        "FilesDeleteFile": 2.2,
        "FilesMoveFile": 2.0,
    },
    "joplin": {
        "NotesIsTodo": 1.0,
        "NotesMeetingAttendeeCount": 1.0,
        "NotesRecipeIngredientCount": 1.0,
        "NotesTodoItemCount": 1.0,
    },
    "markor": {
        "MarkorAddNoteHeader": 1.2,
        "MarkorChangeNoteContent": 1.2,
        "MarkorCreateFolder": 1.0,
        "MarkorCreateNote": 1.6,
        "MarkorCreateNoteAndSms": 1.8,
        "MarkorCreateNoteFromClipboard": 1.4,
        "MarkorDeleteAllNotes": 1.4,
        "MarkorDeleteNewestNote": 1.0,
        "MarkorDeleteNote": 1.0,
        "MarkorEditNote": 1.2,
        "MarkorMergeNotes": 7.8,
        "MarkorMoveNote": 1.4,
        "MarkorTranscribeVideo": 2.0,
    },
    "open tracks sports tracker": {
        "SportsTrackerActivitiesCountForWeek": 1.0,
        "SportsTrackerActivitiesOnDate": 2.0,
        "SportsTrackerActivityDuration": 1.0,
        "SportsTrackerLongestDistanceActivity": 1.0,
        "SportsTrackerTotalDistanceForCategoryOverInterval": 2.0,
        "SportsTrackerTotalDurationForCategoryThisWeek": 1.0,
    },
    "osmand": {
        "OsmAndFavorite": 1.3,
        "OsmAndMarker": 2.0,
        "OsmAndTrack": 12.0,
    },
    "pro expense": {
        "ExpenseAddMultiple": 6.0,
        "ExpenseAddMultipleFromGallery": 6.0,
        "ExpenseAddMultipleFromMarkor": 6.0,
        "ExpenseAddSingle": 1.2,
        "ExpenseDeleteDuplicates": 1.2,
        "ExpenseDeleteDuplicates2": 1.8,
        "ExpenseDeleteMultiple": 2.0,
        "ExpenseDeleteMultiple2": 3.4,
        "ExpenseDeleteSingle": 1.0,
    },
    "retro music": {
        "RetroCreatePlaylist": 2.4,
        "RetroPlayingQueue": 3.2,
        "RetroPlaylistDuration": 3.0,
        "RetroSavePlaylist": 5.0,
    },
    "settings": {
        "SystemBluetoothTurnOff": 1.0,
        "SystemBluetoothTurnOffVerify": 1.0,
        "SystemBluetoothTurnOn": 1.0,
        "SystemBluetoothTurnOnVerify": 1.0,
        "SystemBrightnessMax": 1.0,
        "SystemBrightnessMaxVerify": 1.0,
        "SystemBrightnessMin": 1.0,
        "SystemBrightnessMinVerify": 1.0,
        "SystemWifiTurnOff": 1.0,
        "SystemWifiTurnOffVerify": 1.0,
        "SystemWifiTurnOn": 1.0,
        "SystemWifiTurnOnVerify": 1.0,
        "TurnOffWifiAndTurnOnBluetooth": 2.0,
        "TurnOnWifiAndOpenApp": 2.0,
    },
    "simple calendar pro": {
        "SimpleCalendarAddOneEvent": 3.4,
        "SimpleCalendarAddOneEventInTwoWeeks": 3.4,
        "SimpleCalendarAddOneEventRelativeDay": 3.4,
        "SimpleCalendarAddOneEventTomorrow": 3.4,
        "SimpleCalendarAddRepeatingEvent": 3.4,
        "SimpleCalendarAnyEventsOnDate": 1.0,
        "SimpleCalendarDeleteEvents": 1.4,
        "SimpleCalendarDeleteEventsOnRelativeDay": 1.2,
        "SimpleCalendarDeleteOneEvent": 1.2,
        "SimpleCalendarEventOnDateAtTime": 1.0,
        "SimpleCalendarEventsInNextWeek": 1.0,
        "SimpleCalendarEventsInTimeRange": 1.0,
        "SimpleCalendarEventsOnDate": 1.0,
        "SimpleCalendarFirstEventAfterStartTime": 1.0,
        "SimpleCalendarLocationOfEvent": 1.0,
        "SimpleCalendarNextEvent": 1.0,
        "SimpleCalendarNextMeetingWithPerson": 1.0,
    },
    "simple draw pro": {
        "SimpleDrawProCreateDrawing": 1.8,
    },
    "simple gallery pro": {
        "MarkorTranscribeReceipt": 1.8,
        "SaveCopyOfReceiptTaskEval": 1.6,
    },
    "simple sms messenger": {
        "SimpleSmsReply": 1.2,
        "SimpleSmsReplyMostRecent": 1.2,
        "SimpleSmsResend": 1.2,
        "SimpleSmsSend": 1.2,
        "SimpleSmsSendClipboardContent": 1.2,
        "SimpleSmsSendReceivedAddress": 1.8,
    },
    "tasks": {
        "TasksCompletedTasksForDate": 1.0,
        "TasksDueNextWeek": 1.0,
        "TasksDueOnDate": 1.0,
        "TasksHighPriorityTasks": 1.0,
        "TasksHighPriorityTasksDueOnDate": 1.0,
        "TasksIncompleteTasksOnDate": 1.0,
    },
    "vlc": {
        "VlcCreatePlaylist": 2.8,
        "VlcCreateTwoPlaylists": 4.8,
    },
}

FACTS: dict[str, tuple[float, str]] = {
    task: (complexity, app)
    for app, tasks in _BY_APP.items()
    for task, complexity in tasks.items()
}
"""Complexity and application of each task, by its name."""
