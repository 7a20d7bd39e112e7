"""The scalar fields of an OpenRTB 2.6 bid request, as paths from its root.

`imp` stands for the auctioned impression. Below an `ext` object everything is allowed, because there the exchange
decides. Source: IAB Tech Lab, OpenRTB 2.6 (2022-04, updated to 2.6-202309), sections 3.2.1 to 3.2.27.
"""

from __future__ import annotations

import re
from typing import Final

_STRING: Final = "string"
_NUMBER: Final = "number"

_GEO = {
    "lat": _NUMBER, "lon": _NUMBER, "type": _NUMBER, "accuracy": _NUMBER, "lastfix": _NUMBER, "ipservice": _NUMBER,
    "country": _STRING, "region": _STRING, "regionfips104": _STRING, "metro": _STRING, "city": _STRING,
    "zip": _STRING, "utcoffset": _NUMBER,
}  # fmt: skip
_PUBLISHER = {"id": _STRING, "name": _STRING, "domain": _STRING, "cattax": _NUMBER}
_CONTENT = {
    "id": _STRING, "episode": _NUMBER, "title": _STRING, "series": _STRING, "season": _STRING, "artist": _STRING,
    "genre": _STRING, "album": _STRING, "isrc": _STRING, "url": _STRING, "cattax": _NUMBER, "prodq": _NUMBER,
    "context": _NUMBER, "contentrating": _STRING, "userrating": _STRING, "qagmediarating": _NUMBER,
    "keywords": _STRING, "livestream": _NUMBER, "sourcerelationship": _NUMBER, "len": _NUMBER, "language": _STRING,
    "langb": _STRING, "embeddable": _NUMBER,
}  # fmt: skip
_INVENTORY = {
    "id": _STRING, "name": _STRING, "domain": _STRING, "cattax": _NUMBER, "privacypolicy": _NUMBER,
    "keywords": _STRING, "inventorypartnerdomain": _STRING,
}  # fmt: skip
_BANNER = {
    "w": _NUMBER, "h": _NUMBER, "wmax": _NUMBER, "hmax": _NUMBER, "wmin": _NUMBER, "hmin": _NUMBER, "id": _STRING,
    "pos": _NUMBER, "topframe": _NUMBER, "vcm": _NUMBER,
}  # fmt: skip
_VIDEO = {
    "minduration": _NUMBER, "maxduration": _NUMBER, "startdelay": _NUMBER, "maxseq": _NUMBER, "poddur": _NUMBER,
    "podid": _STRING, "podseq": _NUMBER, "protocol": _NUMBER, "w": _NUMBER, "h": _NUMBER, "placement": _NUMBER,
    "plcmt": _NUMBER, "linearity": _NUMBER, "skip": _NUMBER, "skipmin": _NUMBER, "skipafter": _NUMBER,
    "slotinpod": _NUMBER, "mincpmpersec": _NUMBER, "sequence": _NUMBER, "maxextended": _NUMBER,
    "minbitrate": _NUMBER, "maxbitrate": _NUMBER, "boxingallowed": _NUMBER, "playbackend": _NUMBER, "pos": _NUMBER,
}  # fmt: skip
_AUDIO = {
    "minduration": _NUMBER, "maxduration": _NUMBER, "poddur": _NUMBER, "startdelay": _NUMBER, "podid": _STRING,
    "podseq": _NUMBER, "sequence": _NUMBER, "slotinpod": _NUMBER, "mincpmpersec": _NUMBER, "maxextended": _NUMBER,
    "minbitrate": _NUMBER, "maxbitrate": _NUMBER, "maxseq": _NUMBER, "feed": _NUMBER, "stitched": _NUMBER,
    "nvol": _NUMBER,
}  # fmt: skip

_OBJECTS: Final = {
    "": {"id": _STRING, "test": _NUMBER, "at": _NUMBER, "tmax": _NUMBER, "allimps": _NUMBER, "cattax": _NUMBER},
    "source": {"fd": _NUMBER, "tid": _STRING, "pchain": _STRING},
    "regs": {"coppa": _NUMBER, "gdpr": _NUMBER, "us_privacy": _STRING, "gpp": _STRING},
    "imp": {
        "id": _STRING, "displaymanager": _STRING, "displaymanagerver": _STRING, "instl": _NUMBER, "tagid": _STRING,
        "bidfloor": _NUMBER, "bidfloorcur": _STRING, "clickbrowser": _NUMBER, "secure": _NUMBER, "rwdd": _NUMBER,
        "ssai": _NUMBER, "exp": _NUMBER,
    },
    "imp.banner": _BANNER,
    "imp.video": _VIDEO,
    "imp.audio": _AUDIO,
    "imp.native": {"request": _STRING, "ver": _STRING},
    "imp.pmp": {"private_auction": _NUMBER},
    "imp.qty": {"multiplier": _NUMBER, "sourcetype": _NUMBER, "vendor": _STRING},
    "site": {**_INVENTORY, "page": _STRING, "ref": _STRING, "search": _STRING, "mobile": _NUMBER},
    "site.publisher": _PUBLISHER,
    "site.content": _CONTENT,
    "app": {**_INVENTORY, "bundle": _STRING, "storeurl": _STRING, "ver": _STRING, "paid": _NUMBER},
    "app.publisher": _PUBLISHER,
    "app.content": _CONTENT,
    "dooh": {"id": _STRING, "name": _STRING, "domain": _STRING, "venuetypetax": _NUMBER, "keywords": _STRING},
    "dooh.publisher": _PUBLISHER,
    "device": {
        "ua": _STRING, "dnt": _NUMBER, "lmt": _NUMBER, "ip": _STRING, "ipv6": _STRING, "devicetype": _NUMBER,
        "make": _STRING, "model": _STRING, "os": _STRING, "osv": _STRING, "hwv": _STRING, "h": _NUMBER, "w": _NUMBER,
        "ppi": _NUMBER, "pxratio": _NUMBER, "js": _NUMBER, "geofetch": _NUMBER, "flashver": _STRING,
        "language": _STRING, "langb": _STRING, "carrier": _STRING, "mccmnc": _STRING, "connectiontype": _NUMBER,
        "ifa": _STRING, "didsha1": _STRING, "didmd5": _STRING, "dpidsha1": _STRING, "dpidmd5": _STRING,
        "macsha1": _STRING, "macmd5": _STRING,
    },
    "device.geo": _GEO,
    "device.sua": {"mobile": _NUMBER, "architecture": _STRING, "bitness": _STRING, "model": _STRING, "source": _NUMBER},
    "user": {
        "id": _STRING, "buyeruid": _STRING, "yob": _NUMBER, "gender": _STRING, "keywords": _STRING,
        "customdata": _STRING, "consent": _STRING,
    },
    "user.geo": _GEO,
}  # fmt: skip

_TYPES: Final = {
    f"{parent}.{field}" if parent else field: json_type
    for parent, fields in _OBJECTS.items()
    for field, json_type in fields.items()
}
_ANY: Final = "string or number"
_EXT_PATH = re.compile(r"(?:(?P<parent>[a-z0-9_.]+)\.)?ext\.[A-Za-z0-9_]{1,64}(?:\.[A-Za-z0-9_]{1,64}){0,6}")


def known_path_types(path: str) -> str | None:
    """The JSON type of the scalar at `path` ("string", "number", or either below `ext`); None if there is none.

    >>> known_path_types("device.geo.country"), known_path_types("device.geo.contry"), known_path_types("imp.ext.gpid")
    ('string', None, 'string or number')
    """
    found = _TYPES.get(path)
    if found is not None:
        return found
    match = _EXT_PATH.fullmatch(path)
    if match is None:
        return None
    parent = match["parent"]
    return _ANY if parent is None or parent in _OBJECTS else None
