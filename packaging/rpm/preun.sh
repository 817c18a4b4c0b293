# Before the files go; $1 is how many of this package stay. Only a removal stops the service.
if [ "$1" -eq 0 ]; then
    places=$(callvaultctl config show 2>/dev/null | awk '$1 == "data_dir" || $1 == "store.path" || $1 == "keys.path" { print "  " $0 }' || :)
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now callvaultd.service >/dev/null 2>&1 || :
    fi
    # The profiles are of no use without the programs.
    if command -v apparmor_parser >/dev/null && aa-enabled --quiet 2>/dev/null; then
        for profile in callvaultd callvault-portal; do
            apparmor_parser -R "/etc/apparmor.d/$profile" >/dev/null 2>&1 || :
        done
    fi
    echo "callvault: recordings and keys stay where they are:" >&2
    echo "${places:-  /var/lib/callvault}" >&2
fi
exit 0
