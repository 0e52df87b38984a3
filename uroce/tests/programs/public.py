# SPDX-License-Identifier: Apache-2.0
"""Files for programs that run as an ordinary user, from a working copy that this user can't enter, such as one below root's home."""
import atexit
import os
import shutil
import tempfile

OTHERS_MAY_ENTER = 0o001


def may_be_entered(folder):
    """By everyone, from the root folder down to this one."""
    while os.stat(folder).st_mode & OTHERS_MAY_ENTER:
        if folder == "/":
            return True
        folder = os.path.dirname(folder)
    return False


def for_everyone(folder, *files):
    """The real path of this folder; if other users can't enter it, of a copy of its `files` that are there, and of nothing else.
    The copy goes when this process ends."""
    folder = os.path.realpath(folder)
    if os.getuid() != 0 or not os.path.isdir(folder) or may_be_entered(folder):
        return folder
    copy = tempfile.mkdtemp(prefix="uroce-public.")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    for file in files:
        source, target = os.path.join(folder, file), os.path.join(copy, file)
        if os.path.exists(source):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(source, target, follow_symlinks=False)
            if not os.path.islink(target):
                os.chmod(target, os.stat(source).st_mode | 0o444)
    for made, _, _ in os.walk(copy):
        os.chmod(made, 0o755)
    return copy
