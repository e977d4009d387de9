#!/bin/sh
# An empty volume is that of a replica. As a master it would make the other region copy nothing over
# everything.
set -eu
[ ! -d /data/role ] || exit 0
rm -rf /data/first
mkdir /data/first
echo "include /etc/redis/conf/replica.conf" > /data/first/replica.conf
sync /data/first/replica.conf
mv /data/first /data/role
