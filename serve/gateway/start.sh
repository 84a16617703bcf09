#!/bin/sh
# Write the part of nginx's configuration that the environment decides, and become nginx.
#
#   PINHOLE_API_KEY      keys, separated by commas or spaces; without a key, everybody may call
#   PINHOLE_RATE         requests a second that one caller may make
#   PINHOLE_CONNECTIONS  requests that one caller may have running
#   /tls                 tls.crt and tls.key: HTTPS instead of HTTP
set -euf
umask 077 # no other user may read the keys

refuse() {
  echo "gateway: $*" >&2
  exit 1
}

check_number() {
  case $2 in
    '' | *[!0-9]* | 0*) refuse "$1 must be a whole number of at least 1; got '$2'" ;;
  esac
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

check_number PINHOLE_RATE "${PINHOLE_RATE:=1000}"
check_number PINHOLE_CONNECTIONS "${PINHOLE_CONNECTIONS:=64}"

mkdir -p /tmp/gateway
write_keys >/tmp/gateway/http.conf
cat >>/tmp/gateway/http.conf <<CONF
map "" \$rate { default $PINHOLE_RATE; }
map "" \$connections { default $PINHOLE_CONNECTIONS; }
limit_req_zone \$limited zone=rate:10m rate=${PINHOLE_RATE}r/s;
limit_conn_zone \$limited zone=connections:10m;
CONF
cat >/tmp/gateway/limits.conf <<CONF
limit_req zone=rate burst=$((PINHOLE_RATE * 2)) nodelay;
limit_conn connections $PINHOLE_CONNECTIONS;
CONF
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
else
  echo 'listen 8080;' >/tmp/gateway/listen.conf
fi
exec nginx -g 'daemon off;'
