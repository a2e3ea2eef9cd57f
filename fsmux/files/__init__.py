"""Files: names resolved beneath a held root, sources to read, sinks to write, and what survives a crash.

Everything here blocks and is called from worker threads; nothing here knows of Trio, of the wire, or of a peer.

    syscalls   the only module that asks the kernel for anything    lease    descriptors that threads may share
    names      which names a peer may say at all                    resolve  from components to a descriptor
    root       the served directory and what can be done in it      source   one file to be read
    chunks     arithmetic of chunks and checksums                   manifest what of a file has arrived
    journal    the manifest, persisted                              lock     one writer per file
    state      the reserved directory for unfinished files          resume   what of an unfinished file still holds
    basis      an earlier version, to take unchanged ranges from    sink     one file to be written
"""
