#!/usr/bin/python3
"""A network share whose server fails as it is told: a file system in user space (FUSE) over a folder.

usage: share.py FOLDER MOUNTPOINT FAULTFILE

FAULTFILE holds the fault in force, looked at with each request: empty for none, "hung" for requests that are not answered until it
says something else, else the name of an error (EIO). Errors that a share gives to writers alone are given to them alone. Runs until
it is unmounted or killed.
"""

import errno
import os
import sys
import time

try:
    from fusepy import FUSE, FuseOSError, Operations
except ImportError:
    from fuse import FUSE, FuseOSError, Operations

WRITERS_ONLY = {"EROFS", "ENOSPC", "EDQUOT", "EACCES"}
WRITING = {"mkdir", "create", "write", "truncate", "rename"}


class Share(Operations):
    def __init__(self, folder, fault):
        self.folder = folder
        self.fault = fault

    def __call__(self, name, path, *arguments):
        while (fault := self.in_force()) == "hung":
            time.sleep(0.02)
        opens_to_write = name == "open" and arguments[0] & (os.O_WRONLY | os.O_RDWR)
        if fault and (fault not in WRITERS_ONLY or name in WRITING or opens_to_write):
            if name not in ("init", "destroy", "release"):
                raise FuseOSError(getattr(errno, fault))
        return super().__call__(name, path, *arguments)

    def in_force(self):
        with open(self.fault) as file:
            return file.read().strip()

    def at(self, path):
        return self.folder + path

    def getattr(self, path, handle=None):
        about = os.lstat(self.at(path))
        names = ["st_atime", "st_ctime", "st_gid", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid"]
        return {name: getattr(about, name) for name in names}

    def readdir(self, path, handle):
        return [".", "..", *os.listdir(self.at(path))]

    def mkdir(self, path, mode):
        os.mkdir(self.at(path), mode)

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def open(self, path, flags):
        return os.open(self.at(path), flags)

    def create(self, path, mode, info=None):
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    def write(self, path, content, offset, handle):
        return os.pwrite(handle, content, offset)

    def truncate(self, path, length, handle=None):
        os.truncate(self.at(path), length)

    def fsync(self, path, only_data, handle):
        os.fsync(handle)

    def release(self, path, handle):
        os.close(handle)

    def rename(self, old, new):
        os.rename(self.at(old), self.at(new))

    def unlink(self, path):
        os.unlink(self.at(path))

    def statfs(self, path):
        about = os.statvfs(self.folder)
        names = ["f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_frsize", "f_namemax"]
        return {name: getattr(about, name) for name in names}


if __name__ == "__main__":
    folder, mountpoint, fault = sys.argv[1:]
    # Nothing is remembered by the kernel: each request comes here.
    FUSE(Share(folder, fault), mountpoint, foreground=True, attr_timeout=0, entry_timeout=0, negative_timeout=0, direct_io=True)
