"""What the simulated applications are called and what stands in their menus.

One line per menu. Items are separated by semicolons; a bare label is a switch, `=text`
a text field, `=<option set>` a choice of four, and `!` an action that cannot be undone.
A leading `+` marks a switch that starts on. Labels share words on purpose.
"""

__all__ = [
    "ADJECTIVES",
    "APPS",
    "DOMAINS",
    "MENUS",
    "MISSING_NOUNS",
    "NOUNS",
    "OPTION_SETS",
    "TEXT_WORDS",
]

APPS = (
    ("chrome", "Chrome"),
    ("gimp", "Gimp"),
    ("libreoffice_calc", "Calc"),
    ("libreoffice_impress", "Impress"),
    ("libreoffice_writer", "Writer"),
    ("os", "System"),
    ("thunderbird", "Thunderbird"),
    ("vlc", "Player"),
    ("vs_code", "Code"),
)
"""Domain and name on the screen of each application."""

DOMAINS = (*(domain for domain, _ in APPS), "multi_apps")
"""The ten domains; the last one spans two applications."""

OPTION_SETS = {
    "size": ("small", "medium", "large", "huge"),
    "color": ("red", "green", "blue", "yellow"),
    "side": ("left", "right", "top", "bottom"),
    "theme": ("light", "dark", "gray", "sepia"),
    "speed": ("slow", "normal", "fast", "turbo"),
    "language": ("english", "french", "german", "spanish"),
    "unit": ("inch", "point", "pixel", "meter"),
    "often": ("never", "daily", "weekly", "monthly"),
}
"""Four words a choice can be between."""

MENUS = {
    "chrome": {
        "File": "Save offline; Save history; Print headers; Print background;"
        " Download folder=text; Clear downloads!",
        "View": "+Bookmarks bar; Side panel; Tab size=size; Page size=size;"
        " Font size=size; Toolbar theme=theme; Page theme=theme; Reader theme=theme",
        "Search": "Search suggestions; Search preview; Search engine=text;"
        " Search region=language; Page translation=language; Menu language=language",
        "Privacy": "+Block cookies; Block popups; Send reports; Send location;"
        " Clear history=often; Clear cookies=often; Safety check=often;"
        " Delete profile!",
        "Startup": "Home button; Home page=text; Restore tabs; Start minimized;"
        " Preload pages; Reset settings!",
        "Tools": "Developer mode; Developer hints; Task monitor;"
        " Profile name=text; Remove extensions!",
    },
    "gimp": {
        "File": "Export metadata; Export thumbnail; Backup copies; Author name=text;"
        " Image comment=text; Revert image!",
        "Edit": "Snap strokes; Snap guides; Paste centered; Undo limit=size;"
        " Fill color=color; Stroke color=color; Clear undo!",
        "View": "+Show rulers; Show grid; Show guides; Ruler unit=unit; Grid unit=unit;"
        " Canvas theme=theme; Full preview",
        "Image": "Auto crop; Auto align; Print unit=unit; Canvas size=size;"
        " Canvas color=color; Flatten image!",
        "Layers": "Layer mask; Layer lock; Layer boundary; Layer name=text;"
        " Layer size=size; Merge layers!",
        "Windows": "Single window; Dock tabs; Brush preview; Dock theme=theme;"
        " Icon theme=theme; Brush name=text",
    },
    "libreoffice_calc": {
        "File": "Autosave copies; Save backup; Document title=text;"
        " Document author=text; Discard versions!",
        "Edit": "Track changes; Protect changes; Fill series; Find regions;"
        " Clear contents!",
        "View": "+Formula bar; Formula hints; Grid lines; Grid snap; Column headers;"
        " Zoom size=size; Value highlights; Page breaks",
        "Insert": "Header row; Footer row; Named range=text; Chart color=color;"
        " Chart side=side; Legend side=side; Chart size=size",
        "Format": "Wrap cells; Merge cells; Bold totals; Cell color=color;"
        " Border color=color; Text side=side; Font size=size",
        "Data": "Auto filter; Auto input; Live recalculation; Sheet password=text;"
        " Delete sheet!; Remove duplicates!",
    },
    "libreoffice_impress": {
        "File": "Autosave slides; Embed fonts; Show title=text; Presenter name=text;"
        " Overwrite original!",
        "View": "+Slide panel; Slide sorter; Notes panel; Ruler lines; Snap lines;"
        " Panel side=side; Notes size=size",
        "Insert": "Slide number; Slide footer; Date stamp; Footer text=text;"
        " Number side=side; Logo side=side",
        "Format": "Shrink text; Fit text; Font size=size; Bullet size=size;"
        " Title color=color; Bullet color=color; Shadow color=color",
        "Slide": "Hide slide; Lock slide; Background color=color; Slide name=text;"
        " Delete slides!; Reset layout!",
        "Show": "Loop show; Pointer pen; Presenter console; Play speed=speed;"
        " Fade speed=speed; Animation speed=speed; Clear animations!",
    },
    "libreoffice_writer": {
        "File": "Versions history; Versions always; Document title=text;"
        " Document subject=text; Discard edits!",
        "Edit": "Record edits; Lock edits; Smart quotes; Smart paste;"
        " Accept everything!; Delete comments!",
        "View": "+Text boundaries; Table boundaries; Hidden characters;"
        " Hidden paragraphs; Page theme=theme; Sidebar theme=theme; Icon theme=theme",
        "Insert": "Page numbers; Line numbers; Page header; Page footer;"
        " Bookmark name=text; Watermark text=text; Watermark color=color",
        "Format": "Bold headings; Hyphenate words; Double spacing; Font size=size;"
        " Heading size=size; Caption size=size; Font color=color; Heading color=color",
        "Language": "Check spelling; Check grammar; Text language=language;"
        " Menu language=language; Thesaurus language=language",
    },
    "os": {
        "Display": "Night light; Night schedule; Fractional scaling; Screen size=size;"
        " Text size=size; Cursor size=size; Desktop theme=theme",
        "Sound": "Over amplification; Mute alerts; Mute microphone; Startup sound;"
        " Alert speed=speed",
        "Network": "+Wireless network; Airplane mode; Metered network; Host name=text;"
        " Network password=text; Forget networks!",
        "Power": "Battery saver; Battery percentage; Dim screen; Lock screen;"
        " Lock theme=theme; Dock theme=theme",
        "Users": "Automatic login; Guest login; User name=text; Work group=text;"
        " Delete user!; Erase home!",
        "Files": "Hidden files; Sort folders; Empty trash!; Search files;"
        " Pointer speed=speed; Repeat speed=speed; Format disk!",
    },
    "thunderbird": {
        "File": "Work offline; Compact folders; Compact always; Print attachments;"
        " Account name=text; Delete account!",
        "View": "+Message pane; Message threads; Folder pane; Folder size=size;"
        " Message size=size; Icon size=size; Unified folders",
        "Message": "Plain text; Reply above; Reply quoted; Attach card;"
        " Signature text=text; Reply address=text; Purge inbox!",
        "Filters": "Junk filter; Junk log; Junk folder=text; Check junk=often;"
        " Check mail=often; Empty junk!",
        "Calendar": "Week numbers; Weekend days; Task reminders; Event reminders;"
        " Archive events=often; Event color=color; Task color=color;"
        " Reminder color=color",
    },
    "vlc": {
        "Media": "Remember streams; Remember position; Record folder=text;"
        " Network address=text; Clear playlist!",
        "Playback": "Loop playlist; Shuffle playlist; Pause minimized;"
        " Play speed=speed; Jump speed=speed; Scroll speed=speed",
        "Audio": "Normalize volume; Reset volume; Headphone effect; Stereo swap;"
        " Audio language=language; Audio device=text",
        "Video": "Fit screen; Always top; Deinterlace video; Wallpaper video;"
        " Video side=side; Logo side=side; Snapshot folder=text",
        "Subtitle": "+Show subtitles; Shadow subtitles; Subtitle size=size;"
        " Subtitle side=side; Subtitle language=language; Menu language=language",
        "Tools": "Minimal interface; System tray; Status bar; Control size=size;"
        " Cover size=size; Reset preferences!; Delete library!",
    },
    "vs_code": {
        "File": "Auto save; Hot exit; Trim whitespace; Final newline;"
        " Window title=text; Discard changes!",
        "Edit": "Format paste; Format save; Word wrap; Bracket pairs;"
        " Bracket guides; Tab size=size; Font size=size",
        "View": "+Status line; Minimap panel; Sticky scroll; Zen mode;"
        " Sidebar side=side; Panel side=side; Minimap side=side; Line size=size",
        "Appearance": "Color theme=theme; Icon theme=theme; Terminal theme=theme;"
        " Smooth cursor; Smooth scroll; Cursor speed=speed",
        "Terminal": "Confirm exit; Copy selection; Shell name=text; Scroll speed=speed;"
        " Blink speed=speed; Kill terminals!",
        "Extensions": "Update extensions; Recommend extensions; Sync name=text;"
        " Proxy address=text; Uninstall everything!; Reset workspace!",
    },
}  # fmt: skip
"""Menus of each application, by domain."""

NOUNS = {
    "chrome": "tabs pages surfing browsing bookmarks visits sites browser",
    "gimp": "brushes pixels canvas strokes picture drawing palette photo",
    "libreoffice_calc": "cells sheet columns totals rows tables numbers ledger",
    "libreoffice_impress": "slides deck talk bullets stage pitch outline podium",
    "libreoffice_writer": "letters pages essay margins prose draft chapter manuscript",
    "os": "desktop machine session screen keys laptop login computer",
    "thunderbird": "mail inbox letters replies post calendar senders mailbox",
    "vlc": "films songs music movie captions clips cinema radio",
    "vs_code": "editor code lines project shell cursor typing brackets",
}
"""Nouns that nicknames of settings are made of, by domain."""

ADJECTIVES = (
    "quiet calm tidy clever gentle steady bright hidden honest lazy eager modest"
    " silent polite rapid sharp soft solid sturdy subtle sunny swift tame tender"
    " thrifty tiny twin velvet vivid warm wild wise amber ivory copper silver"
    " golden crimson azure misty frosty dusty breezy cosy crisp curious daring"
    " early humble jolly keen late lucky mellow merry nimble noble patient plain"
    " proud round sleepy smart sober stern stout tall timid upright urban vague"
    " witty young zesty"
).split()
"""Adjectives that nicknames of settings are made of."""

MISSING_NOUNS = (
    "hologram jukebox weather robot oracle passport lottery teleport".split()
)
"""Nouns of things that no application here can do."""

TEXT_WORDS = (
    "harbor cedar falcon lantern pebble orchid meadow canyon violin marble willow"
    " cosmos badger maple ember glacier tulip anchor saffron pigeon quartz basil"
    " raven cobalt juniper walnut otter prairie summit beacon clover thistle"
    " heron lagoon mango nutmeg opal pepper quill reef sable tundra umber vapor"
    " wharf yarrow zephyr acorn"
).split()
"""Words that tasks ask to have typed."""
