# mypy: disable-error-code=type-arg
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNKNOWN: _ClassVar[Kind]
    KIND_FILE: _ClassVar[Kind]
    KIND_DIRECTORY: _ClassVar[Kind]
    KIND_SYMLINK: _ClassVar[Kind]
    KIND_SPECIAL: _ClassVar[Kind]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_DEFAULT: _ClassVar[Durability]
    DURABILITY_NONE: _ClassVar[Durability]
    DURABILITY_BATCH: _ClassVar[Durability]
    DURABILITY_FILE: _ClassVar[Durability]

class Act(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACT_MAKE: _ClassVar[Act]
    ACT_ADJUST: _ClassVar[Act]
    ACT_REMOVE: _ClassVar[Act]
    ACT_LINK: _ClassVar[Act]
    ACT_LIST: _ClassVar[Act]

class Namespaces(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAMESPACES_NONE: _ClassVar[Namespaces]
    NAMESPACES_USER: _ClassVar[Namespaces]
    NAMESPACES_ALL: _ClassVar[Namespaces]
KIND_UNKNOWN: Kind
KIND_FILE: Kind
KIND_DIRECTORY: Kind
KIND_SYMLINK: Kind
KIND_SPECIAL: Kind
DURABILITY_DEFAULT: Durability
DURABILITY_NONE: Durability
DURABILITY_BATCH: Durability
DURABILITY_FILE: Durability
ACT_MAKE: Act
ACT_ADJUST: Act
ACT_REMOVE: Act
ACT_LINK: Act
ACT_LIST: Act
NAMESPACES_NONE: Namespaces
NAMESPACES_USER: Namespaces
NAMESPACES_ALL: Namespaces

class Hello(_message.Message):
    __slots__ = ("min_version", "max_version", "features", "agent", "max_streams", "initial_credit", "eager_credit", "mechanisms", "read_only")
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_CREDIT_FIELD_NUMBER: _ClassVar[int]
    EAGER_CREDIT_FIELD_NUMBER: _ClassVar[int]
    MECHANISMS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    min_version: int
    max_version: int
    features: _containers.RepeatedScalarFieldContainer[str]
    agent: str
    max_streams: int
    initial_credit: int
    eager_credit: int
    mechanisms: _containers.RepeatedScalarFieldContainer[str]
    read_only: bool
    def __init__(self, min_version: _Optional[int] = ..., max_version: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., agent: _Optional[str] = ..., max_streams: _Optional[int] = ..., initial_credit: _Optional[int] = ..., eager_credit: _Optional[int] = ..., mechanisms: _Optional[_Iterable[str]] = ..., read_only: bool = ...) -> None: ...

class Auth(_message.Message):
    __slots__ = ("mechanism", "data", "done")
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    mechanism: str
    data: bytes
    done: bool
    def __init__(self, mechanism: _Optional[str] = ..., data: _Optional[bytes] = ..., done: bool = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: int
    def __init__(self, token: _Optional[int] = ...) -> None: ...

class Pace(_message.Message):
    __slots__ = ("rate",)
    RATE_FIELD_NUMBER: _ClassVar[int]
    rate: int
    def __init__(self, rate: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("stream_id", "limit")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    limit: int
    def __init__(self, stream_id: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("grants",)
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    def __init__(self, grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    text: str
    def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Path(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, parts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Attrs(_message.Message):
    __slots__ = ("kind", "size", "mtime_ns", "mode", "link_target", "owner", "xattrs")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LINK_TARGET_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    link_target: bytes
    owner: int
    xattrs: Xattrs
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., size: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., mode: _Optional[int] = ..., link_target: _Optional[bytes] = ..., owner: _Optional[int] = ..., xattrs: _Optional[_Union[Xattrs, _Mapping]] = ...) -> None: ...

class Stat(_message.Message):
    __slots__ = ("path", "follow", "owner", "xattrs")
    PATH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    follow: bool
    owner: bool
    xattrs: Namespaces
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., follow: bool = ..., owner: bool = ..., xattrs: _Optional[_Union[Namespaces, str]] = ...) -> None: ...

class List(_message.Message):
    __slots__ = ("path", "recursive")
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    path: Path
    recursive: bool
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., recursive: bool = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("path", "attrs", "fault")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    path: Path
    attrs: Attrs
    fault: Fault
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., attrs: _Optional[_Union[Attrs, _Mapping]] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class Mkdir(_message.Message):
    __slots__ = ("path", "parents", "mode")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    path: Path
    parents: bool
    mode: int
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., parents: bool = ..., mode: _Optional[int] = ...) -> None: ...

class Rename(_message.Message):
    __slots__ = ("source", "target", "replace")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    source: Path
    target: Path
    replace: bool
    def __init__(self, source: _Optional[_Union[Path, _Mapping]] = ..., target: _Optional[_Union[Path, _Mapping]] = ..., replace: bool = ...) -> None: ...

class Remove(_message.Message):
    __slots__ = ("path", "recursive")
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    path: Path
    recursive: bool
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., recursive: bool = ...) -> None: ...

class SetAttrs(_message.Message):
    __slots__ = ("path", "attrs", "durability", "found_ns")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    FOUND_NS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    attrs: Attrs
    durability: Durability
    found_ns: int
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., attrs: _Optional[_Union[Attrs, _Mapping]] = ..., durability: _Optional[_Union[Durability, str]] = ..., found_ns: _Optional[int] = ...) -> None: ...

class Symlink(_message.Message):
    __slots__ = ("path", "target", "attrs", "durability")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    path: Path
    target: bytes
    attrs: Attrs
    durability: Durability
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., target: _Optional[bytes] = ..., attrs: _Optional[_Union[Attrs, _Mapping]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Open(_message.Message):
    __slots__ = ("path", "write", "create", "truncate")
    PATH_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    path: Path
    write: bool
    create: bool
    truncate: bool
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., write: bool = ..., create: bool = ..., truncate: bool = ...) -> None: ...

class Read(_message.Message):
    __slots__ = ("offset", "length")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class ReadDone(_message.Message):
    __slots__ = ("length", "crc32")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    length: int
    crc32: int
    def __init__(self, length: _Optional[int] = ..., crc32: _Optional[int] = ...) -> None: ...

class Write(_message.Message):
    __slots__ = ("offset", "length", "crc32")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    crc32: int
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ..., crc32: _Optional[int] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("sync",)
    SYNC_FIELD_NUMBER: _ClassVar[int]
    sync: bool
    def __init__(self, sync: bool = ...) -> None: ...

class Create(_message.Message):
    __slots__ = ("path", "mode", "durability", "verify", "join", "attempt", "again")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    path: Path
    mode: int
    durability: Durability
    verify: bool
    join: bytes
    attempt: int
    again: bool
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., mode: _Optional[int] = ..., durability: _Optional[_Union[Durability, str]] = ..., verify: bool = ..., join: _Optional[bytes] = ..., attempt: _Optional[int] = ..., again: bool = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("size", "mtime_ns", "tag")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    size: int
    mtime_ns: int
    tag: bytes
    def __init__(self, size: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., tag: _Optional[bytes] = ...) -> None: ...

class Extent(_message.Message):
    __slots__ = ("offset", "length")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Get(_message.Message):
    __slots__ = ("path", "fresh", "chunk_size")
    PATH_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    CHUNK_SIZE_FIELD_NUMBER: _ClassVar[int]
    path: Path
    fresh: bool
    chunk_size: int
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., fresh: bool = ..., chunk_size: _Optional[int] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("path", "no_resume", "durability", "join", "streams", "attempt", "verify", "like", "no_times", "no_perms", "attrs")
    PATH_FIELD_NUMBER: _ClassVar[int]
    NO_RESUME_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    LIKE_FIELD_NUMBER: _ClassVar[int]
    NO_TIMES_FIELD_NUMBER: _ClassVar[int]
    NO_PERMS_FIELD_NUMBER: _ClassVar[int]
    ATTRS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    no_resume: bool
    durability: Durability
    join: bytes
    streams: int
    attempt: int
    verify: bool
    like: Path
    no_times: bool
    no_perms: bool
    attrs: Attrs
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., no_resume: bool = ..., durability: _Optional[_Union[Durability, str]] = ..., join: _Optional[bytes] = ..., streams: _Optional[int] = ..., attempt: _Optional[int] = ..., verify: bool = ..., like: _Optional[_Union[Path, _Mapping]] = ..., no_times: bool = ..., no_perms: bool = ..., attrs: _Optional[_Union[Attrs, _Mapping]] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("identity", "mode", "chunk_size", "eager", "holes")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_SIZE_FIELD_NUMBER: _ClassVar[int]
    EAGER_FIELD_NUMBER: _ClassVar[int]
    HOLES_FIELD_NUMBER: _ClassVar[int]
    identity: Identity
    mode: int
    chunk_size: int
    eager: bool
    holes: int
    def __init__(self, identity: _Optional[_Union[Identity, _Mapping]] = ..., mode: _Optional[int] = ..., chunk_size: _Optional[int] = ..., eager: bool = ..., holes: _Optional[int] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("missing", "whole", "have", "more", "held")
    MISSING_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    HAVE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedCompositeFieldContainer[Extent]
    whole: bool
    have: bool
    more: bool
    held: int
    def __init__(self, missing: _Optional[_Iterable[_Union[Extent, _Mapping]]] = ..., whole: bool = ..., have: bool = ..., more: bool = ..., held: _Optional[int] = ...) -> None: ...

class Have(_message.Message):
    __slots__ = ("offset", "length", "digest")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    digest: bytes
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Haves(_message.Message):
    __slots__ = ("ranges", "more")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Have]
    more: bool
    def __init__(self, ranges: _Optional[_Iterable[_Union[Have, _Mapping]]] = ..., more: bool = ...) -> None: ...

class Keep(_message.Message):
    __slots__ = ("ranges", "more")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Extent]
    more: bool
    def __init__(self, ranges: _Optional[_Iterable[_Union[Extent, _Mapping]]] = ..., more: bool = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("offset", "length", "ranges", "holes", "chunks")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    HOLES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    ranges: _containers.RepeatedCompositeFieldContainer[Extent]
    holes: _containers.RepeatedCompositeFieldContainer[Extent]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[Extent, _Mapping]]] = ..., holes: _Optional[_Iterable[_Union[Extent, _Mapping]]] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("index", "crc32")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    index: int
    crc32: int
    def __init__(self, index: _Optional[int] = ..., crc32: _Optional[int] = ...) -> None: ...

class Again(_message.Message):
    __slots__ = ("index", "found")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    index: int
    found: int
    def __init__(self, index: _Optional[int] = ..., found: _Optional[int] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("chunks", "crc32")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    crc32: int
    def __init__(self, chunks: _Optional[int] = ..., crc32: _Optional[int] = ...) -> None: ...

class Committed(_message.Message):
    __slots__ = ("crc32", "durable", "bytes_resumed", "refused")
    CRC32_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    BYTES_RESUMED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    crc32: int
    durable: bool
    bytes_resumed: int
    refused: Fault
    def __init__(self, crc32: _Optional[int] = ..., durable: bool = ..., bytes_resumed: _Optional[int] = ..., refused: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("directory", "names", "sizes", "mtimes_ns", "modes", "targets", "crcs", "lost", "act", "more", "fault", "shared", "owners", "xattrs", "holed", "as_asked", "own_mtime_ns", "own_mode", "found_ns", "shared_keys")
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    MTIMES_NS_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    CRCS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    HOLED_FIELD_NUMBER: _ClassVar[int]
    AS_ASKED_FIELD_NUMBER: _ClassVar[int]
    OWN_MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    OWN_MODE_FIELD_NUMBER: _ClassVar[int]
    FOUND_NS_FIELD_NUMBER: _ClassVar[int]
    SHARED_KEYS_FIELD_NUMBER: _ClassVar[int]
    directory: Path
    names: bytes
    sizes: _containers.RepeatedScalarFieldContainer[int]
    mtimes_ns: _containers.RepeatedScalarFieldContainer[int]
    modes: _containers.RepeatedScalarFieldContainer[int]
    targets: _containers.RepeatedScalarFieldContainer[bytes]
    crcs: _containers.RepeatedScalarFieldContainer[int]
    lost: _containers.RepeatedCompositeFieldContainer[Lost]
    act: Act
    more: bool
    fault: Fault
    shared: _containers.RepeatedScalarFieldContainer[int]
    owners: _containers.RepeatedScalarFieldContainer[int]
    xattrs: _containers.RepeatedCompositeFieldContainer[Xattrs]
    holed: _containers.RepeatedScalarFieldContainer[int]
    as_asked: bool
    own_mtime_ns: int
    own_mode: int
    found_ns: _containers.RepeatedScalarFieldContainer[int]
    shared_keys: bytes
    def __init__(self, directory: _Optional[_Union[Path, _Mapping]] = ..., names: _Optional[bytes] = ..., sizes: _Optional[_Iterable[int]] = ..., mtimes_ns: _Optional[_Iterable[int]] = ..., modes: _Optional[_Iterable[int]] = ..., targets: _Optional[_Iterable[bytes]] = ..., crcs: _Optional[_Iterable[int]] = ..., lost: _Optional[_Iterable[_Union[Lost, _Mapping]]] = ..., act: _Optional[_Union[Act, str]] = ..., more: bool = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., shared: _Optional[_Iterable[int]] = ..., owners: _Optional[_Iterable[int]] = ..., xattrs: _Optional[_Iterable[_Union[Xattrs, _Mapping]]] = ..., holed: _Optional[_Iterable[int]] = ..., as_asked: bool = ..., own_mtime_ns: _Optional[int] = ..., own_mode: _Optional[int] = ..., found_ns: _Optional[_Iterable[int]] = ..., shared_keys: _Optional[bytes] = ...) -> None: ...

class Lost(_message.Message):
    __slots__ = ("index", "fault")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    index: int
    fault: Fault
    def __init__(self, index: _Optional[int] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...

class Xattrs(_message.Message):
    __slots__ = ("index", "names", "values", "unknown")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    index: int
    names: _containers.RepeatedScalarFieldContainer[bytes]
    values: _containers.RepeatedScalarFieldContainer[bytes]
    unknown: bool
    def __init__(self, index: _Optional[int] = ..., names: _Optional[_Iterable[bytes]] = ..., values: _Optional[_Iterable[bytes]] = ..., unknown: bool = ...) -> None: ...

class Store(_message.Message):
    __slots__ = ("path", "durability", "join", "attempt", "verify", "no_times", "no_perms", "xattrs")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    NO_TIMES_FIELD_NUMBER: _ClassVar[int]
    NO_PERMS_FIELD_NUMBER: _ClassVar[int]
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    durability: Durability
    join: bytes
    attempt: int
    verify: bool
    no_times: bool
    no_perms: bool
    xattrs: Namespaces
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., durability: _Optional[_Union[Durability, str]] = ..., join: _Optional[bytes] = ..., attempt: _Optional[int] = ..., verify: bool = ..., no_times: bool = ..., no_perms: bool = ..., xattrs: _Optional[_Union[Namespaces, str]] = ...) -> None: ...

class Fetch(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: Path
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ...) -> None: ...

class Pack(_message.Message):
    __slots__ = ("number", "groups", "files", "bytes", "all_known")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ALL_KNOWN_FIELD_NUMBER: _ClassVar[int]
    number: int
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    files: int
    bytes: int
    all_known: bool
    def __init__(self, number: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ..., all_known: bool = ...) -> None: ...

class Packed(_message.Message):
    __slots__ = ("number", "failed", "durable")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    number: int
    failed: _containers.RepeatedCompositeFieldContainer[Failed]
    durable: bool
    def __init__(self, number: _Optional[int] = ..., failed: _Optional[_Iterable[_Union[Failed, _Mapping]]] = ..., durable: bool = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("group", "index", "fault", "stands")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    STANDS_FIELD_NUMBER: _ClassVar[int]
    group: int
    index: int
    fault: Fault
    stands: bool
    def __init__(self, group: _Optional[int] = ..., index: _Optional[int] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., stands: bool = ...) -> None: ...

class Walk(_message.Message):
    __slots__ = ("path", "pack_bytes", "medium", "owners", "xattrs")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PACK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEDIUM_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    pack_bytes: int
    medium: int
    owners: bool
    xattrs: Namespaces
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., pack_bytes: _Optional[int] = ..., medium: _Optional[int] = ..., owners: bool = ..., xattrs: _Optional[_Union[Namespaces, str]] = ...) -> None: ...

class Look(_message.Message):
    __slots__ = ("path", "directories", "owners", "xattrs")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DIRECTORIES_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    directories: _containers.RepeatedCompositeFieldContainer[Path]
    owners: bool
    xattrs: Namespaces
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., directories: _Optional[_Iterable[_Union[Path, _Mapping]]] = ..., owners: bool = ..., xattrs: _Optional[_Union[Namespaces, str]] = ...) -> None: ...

class Listed(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class Digest(_message.Message):
    __slots__ = ("path", "groups")
    PATH_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    path: Path
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class Digests(_message.Message):
    __slots__ = ("digests", "lost")
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    digests: bytes
    lost: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, digests: _Optional[bytes] = ..., lost: _Optional[_Iterable[int]] = ...) -> None: ...
