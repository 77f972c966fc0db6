#!/bin/sh
# Runs on an instance, from its unpacked bundle: the same deploy.yml as from a controller, for this host alone.
set -eu
cd "$(dirname "$0")"
platform=$(/usr/bin/python3 -c 'import platform as p, sys; print("%d.%d-%s" % (*sys.version_info[:2], p.machine()))')
if [ ! -e "ansible/$platform.tar.gz" ]; then
  echo "The bundle has no Ansible for this host's Python and architecture, $platform, only: $(ls ansible)" >&2
  exit 1
fi
if [ ! -e "ansible/$platform" ]; then
  rm -rf ansible/new
  mkdir ansible/new
  tar -xzf "ansible/$platform.tar.gz" -C ansible/new
  mv ansible/new "ansible/$platform"
fi
# cloud-init and systemd give neither a home nor a locale.
export HOME="${HOME:-/root}" LC_ALL=C.UTF-8 PYTHONPATH="$PWD/ansible/$platform/lib" ANSIBLE_COLLECTIONS_PATH="$PWD"
FLEET_ADDRESSES=$(hostname --all-ip-addresses)
project=ansible_collections/webfleet/fastapi
export FLEET_ADDRESSES ANSIBLE_HOME="$PWD/ansible/home" ANSIBLE_NOCOLOR=1 ANSIBLE_CONFIG="$PWD/$project/ansible.cfg"
exec /usr/bin/python3 -m ansible playbook --inventory inventory $project/deploy.yml
