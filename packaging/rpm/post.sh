# After the files are there; $1 is how many of this package there are now. An update restarts the service, which keeps live calls.
systemd-sysusers callvault.conf
systemd-tmpfiles --create callvault.conf || :
wanted=$(sed -n 's/^net.core.rmem_max *= *//p' /usr/lib/sysctl.d/30-callvault.conf)
if [ "$(cat /proc/sys/net/core/rmem_max 2>/dev/null || echo "$wanted")" -lt "$wanted" ]; then
    echo "$wanted" 2>/dev/null >/proc/sys/net/core/rmem_max || :
fi
# AppArmor's profiles, before what they confine is started. What local/ and disable/ say is heeded.
if command -v apparmor_parser >/dev/null && aa-enabled --quiet 2>/dev/null; then
    for profile in callvaultd callvault-portal; do
        apparmor_parser -r -W -T "/etc/apparmor.d/$profile" ||
            echo "callvault: AppArmor does not take /etc/apparmor.d/$profile; callvault runs without it" >&2
    done
fi
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || :
fi
if [ "$1" -eq 1 ]; then
    # What is started at boot is the distribution's policy.
    systemctl preset callvaultd.service >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ] && systemctl --quiet is-enabled callvaultd.service; then
        systemctl start callvaultd.service || echo "callvaultd did not start: systemctl status callvaultd says why" >&2
    else
        echo "callvault is installed; to start it, now and at boot: systemctl enable --now callvaultd" >&2
    fi
elif [ -d /run/systemd/system ]; then
    # A restart, never a stop and a start: callvaultd-goodbye would end all calls at the stop.
    systemctl try-restart callvaultd.service || echo "callvaultd did not start: systemctl status callvaultd says why" >&2
fi
exit 0
