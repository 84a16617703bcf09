#!/bin/sh
# Write the part of nginx's configuration that the environment decides, and become nginx.
#
#   PINHOLE_API_KEY      keys, separated by commas or spaces; without a key, everybody may call
#   PINHOLE_RATE         requests a second that one caller may make
#   PINHOLE_CONNECTIONS  requests that one caller may have running
#   PINHOLE_LARGE        large requests that may run, of all callers together
#   PINHOLE_CORS         origins whose web pages may call, separated by commas or spaces, or * for any
#   PINHOLE_SERVICE      host name of the replicas, which has an address for each; default: service
#   PINHOLE_RESOLVER     address of the name server that knows them; default: the system's first
#   /tls                 tls.crt and tls.key: HTTPS instead of HTTP
set -euf
umask 077 # no other user may read the keys

refuse() {
  printf 'gateway: %s\n' "$(printf '%s' "$*" | tr '\n' ' ')" >&2
  exit 1
}

check_number() { # name, value, most
  case $2 in
    '' | *[!0-9]* | 0* | ????????*) refuse "$1 must be a whole number from 1 to $3; got '$2'" ;;
  esac
  [ "$2" -le "$3" ] || refuse "$1 must be a whole number from 1 to $3; got '$2'"
}

check_address() { # name, value
  octet='(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])'
  printf '%s' "$2" | tr '\n' ' ' | grep -Eqx "($octet\.){3}$octet|\[[0-9A-Fa-f:]+\]" ||
    refuse "$1 must be an address such as 127.0.0.11 or [fd00::53]; got '$2'"
}

check_host() { # name, value
  case $2 in
    '' | *[!A-Za-z0-9.-]*) refuse "$1 must be a host name; got '$2'" ;;
  esac
}

# An IPv6 address gets the brackets that nginx wants.
first_name_server() {
  while read -r word address _; do
    case $word:$address in
      nameserver:*:*) echo "[$address]" && return ;;
      nameserver:*) echo "$address" && return ;;
    esac
  done </etc/resolv.conf
}

# The keys are regular expressions, since nginx ignores case where a map has plain strings.
write_keys() {
  keys=$(printf '%s' "${PINHOLE_API_KEY:-}" | tr ', \t' '\n\n\n' | sed '/^$/d')
  echo 'map $http_authorization $caller {'
  if [ -z "${PINHOLE_API_KEY:-}" ]; then
    echo '  default anybody;'
  else
    [ -n "$keys" ] || refuse "PINHOLE_API_KEY is set, but holds no key"
    echo '  default "";'
    number=0
    for key in $keys; do
      number=$((number + 1))
      case $key in
        *[!A-Za-z0-9_-]*) refuse "key $number of PINHOLE_API_KEY may have A-Z a-z 0-9 _ - only" ;;
      esac
      [ ${#key} -ge 16 ] || refuse "key $number of PINHOLE_API_KEY is shorter than 16 characters"
      echo "  \"~^(?i:bearer) $key\$\" key$number;"
    done
  fi
  echo '}'
}

# The origin of the page that calls, if its pages may.
write_origins() {
  form='[a-z][a-z0-9+.-]*://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?'
  names=$(printf '%s' "${PINHOLE_CORS:-}" | tr ',\t\n' '   ')
  echo 'map $http_origin $cors_origin {'
  echo '  default "";'
  for name in $names; do
    if [ "$name" = '*' ]; then
      echo '  "~." $http_origin;'
    elif printf '%s' "$name" | grep -Eqix "$form"; then
      echo "  \"~*^$(printf '%s' "$name" | sed 's/[].[+]/\\&/g')\$\" \$http_origin;"
    else
      refuse "PINHOLE_CORS must be origins such as https://site.example (no path), or *;" \
        "got '$name'"
    fi
  done
  echo '}'
  echo "map \"\" \$cors_vary { default \"${names:+Origin}\"; }"
}

check_number PINHOLE_RATE "${PINHOLE_RATE:=1000}" 1000000
check_number PINHOLE_CONNECTIONS "${PINHOLE_CONNECTIONS:=64}" 65535
check_number PINHOLE_LARGE "${PINHOLE_LARGE:=8}" 65535
check_host PINHOLE_SERVICE "${PINHOLE_SERVICE:=service}"
check_address PINHOLE_RESOLVER "${PINHOLE_RESOLVER:=$(first_name_server)}"
large_each=$(((PINHOLE_LARGE + 1) / 2)) # so that no caller can keep all others out

mkdir -p /tmp/gateway
write_keys >/tmp/gateway/http.conf
write_origins >>/tmp/gateway/http.conf
cat >>/tmp/gateway/http.conf <<CONF
map "" \$rate { default $PINHOLE_RATE; }
map "" \$connections { default $PINHOLE_CONNECTIONS; }
map "" \$large_total { default $PINHOLE_LARGE; }
map "" \$large_each { default $large_each; }
limit_req_zone \$limited zone=rate:10m rate=${PINHOLE_RATE}r/s;
limit_conn_zone \$limited zone=connections:10m;
limit_conn_zone \$large zone=large:1m;
limit_conn_zone \$large_caller zone=large_callers:10m;
resolver $PINHOLE_RESOLVER valid=1s ipv6=off;
CONF
# A replica that comes or goes is known within a second. Failures are not counted against replicas:
# a caller with a poisonous request could get them all banned.
echo "server $PINHOLE_SERVICE:8080 resolve max_fails=0;" >/tmp/gateway/inference.conf
echo "server $PINHOLE_SERVICE:8083 resolve max_fails=0;" >/tmp/gateway/private.conf
cat >/tmp/gateway/limits.conf <<CONF
limit_req zone=rate burst=$((PINHOLE_RATE * 2)) nodelay;
limit_conn connections $PINHOLE_CONNECTIONS;
limit_conn large $PINHOLE_LARGE;
limit_conn large_callers $large_each;
CONF
[ ! -f /tls ] || refuse "PINHOLE_TLS must be a folder with tls.crt and tls.key; it is a file"
if [ -d /tls ]; then
  for file in tls.crt tls.key; do
    [ -r "/tls/$file" ] || refuse "$file is missing in PINHOLE_TLS, or not readable by everybody"
  done
  cat >/tmp/gateway/listen.conf <<'CONF'
listen 8080 ssl;
http2 on;
ssl_certificate /tls/tls.crt;
ssl_certificate_key /tls/tls.key;
ssl_protocols TLSv1.2 TLSv1.3;
add_header Strict-Transport-Security "max-age=31536000" always;
CONF
  fault=$(nginx -t -q 2>&1) || refuse "tls.crt or tls.key in PINHOLE_TLS is no good: $fault"
else
  echo 'listen 8080;' >/tmp/gateway/listen.conf
fi
exec nginx -g 'daemon off;'
