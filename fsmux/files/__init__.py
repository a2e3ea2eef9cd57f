"""Files: names resolved beneath a held root, sources to read, sinks to write, and what survives a crash.

Everything here blocks and is called from worker threads; nothing here knows of Trio, of the wire, or of a peer.

    syscalls   the only module that asks the kernel        lease      descriptors that threads may share
    names      which names a peer may say at all           resolve    from components to a descriptor
    root       the served directory, by components         tree       steps on whole directories
    landing    where new files go                          state      the reserved directory of unfinished files
    source     one file to be read                         handle     random access to one file in place
    chunks     arithmetic of chunks and checksums          manifest   what of a file has arrived
    journal    the manifest, persisted                     lock       one writer per file
    resume     what of an unfinished file still holds      basis      an earlier version, to take ranges from
    opening    how a file to be written is begun           sink       one file to be written
    growing    one whose size is not known before its end  ranges     loops over ranges of bytes
    packing    packs of small files from the disk          unpacking  and to it
    terms      what is kept of packs, and promised         holding    what packs are put together in, and its syncs
    entries    one file or link after the other            standing   their final names, and what else is changed
    whole      directories that appear with all in them    listing    what stands in a directory
"""
