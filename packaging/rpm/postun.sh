# After the files are gone. Nothing that callvault recorded, and no key, is ever removed.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || :
fi
if [ "$1" -eq 0 ]; then
    # Folders are not in the package, only files.
    rmdir /etc/callvault/conf.d /etc/callvault /usr/libexec/callvault /usr/share/doc/callvault /usr/share/licenses/callvault 2>/dev/null || :
fi
exit 0
