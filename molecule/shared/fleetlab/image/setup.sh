#!/bin/sh
# Runs once inside the image: packages, trust, the login user, and what a container needs to boot systemd cleanly.
set -eu
export DEBIAN_FRONTEND=noninteractive
here=/fleet-lab

# Container images drop downloaded packages and keep services from starting; hosts do neither.
rm -f /etc/apt/apt.conf.d/docker-clean /etc/apt/apt.conf.d/docker-gzip-indexes /usr/sbin/policy-rc.d
[ ! -s $here/apt-proxy.conf ] || cp $here/apt-proxy.conf /etc/apt/apt.conf.d/80proxy
apt-get update -q
apt-get install -q -y --no-install-recommends $(cat $here/packages)
# Ubuntu's own sudo since 25.10; where both are installed, it is the one that `sudo` means.
case "$(. /etc/os-release && echo "$ID $VERSION_ID")" in
  'ubuntu 26.04') apt-get install -q -y --no-install-recommends sudo-rs ;;
esac
# Kept, not installed: a host installs them in seconds, and without a network.
apt-get install -q -y --download-only $(cat $here/prefetched)

cp $here/certificates/*.crt /usr/local/share/ca-certificates/ 2>/dev/null || true
update-ca-certificates

useradd --create-home --shell /bin/bash deploy
usermod --password '*' deploy
echo 'deploy ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-deploy
chmod 0440 /etc/sudoers.d/90-deploy
install -d -o deploy -g deploy -m 0700 /home/deploy/.ssh
install -o deploy -g deploy -m 0600 $here/id_ed25519.pub /home/deploy/.ssh/authorized_keys

rm -f /etc/ssh/ssh_host_*
install -m 0600 $here/host_ed25519 /etc/ssh/ssh_host_ed25519_key
install -m 0644 $here/host_ed25519.pub /etc/ssh/ssh_host_ed25519_key.pub
cat >/etc/ssh/sshd_config.d/10-lab.conf <<'END'
PasswordAuthentication no
PermitRootLogin no
AllowAgentForwarding no
X11Forwarding no
UseDNS no
END

# Each host makes its own at boot.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id
echo LANG=C.UTF-8 >/etc/default/locale

# No consoles, devices or kernel of its own; and nothing that takes apt's lock at a moment of its own choosing.
systemctl mask console-getty.service getty.target systemd-udevd.service systemd-modules-load.service \
    systemd-remount-fs.service sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount \
    apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service fstrim.timer e2scrub_all.timer \
    motd-news.timer man-db.timer systemd-firstboot.service systemd-networkd-wait-online.service 2>/dev/null
rm -rf $here
