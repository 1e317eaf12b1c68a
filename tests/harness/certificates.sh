# Makes, in the current directory, the certificates of tests/connecting.rs. They are of use for a month.
set -eu
umask 077
ec() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
self() { # name, extra extension
    ec "$1.key"
    openssl req -x509 -new -key "$1.key" -out "$1.crt" -days 30 -subj "/CN=$1" -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" $2
}
signed() { # name, CN, SAN or nothing
    ec "$1.key"
    openssl req -new -key "$1.key" -out "$1.csr" -subj "/CN=$2"
    if [ -n "$3" ]; then
        echo "subjectAltName=$3" >"$1.ext"
        openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 30 -extfile "$1.ext" 2>/dev/null
    else
        openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 30 2>/dev/null
    fi
}
self self_ca ""
self self_leaf "-addext basicConstraints=critical,CA:FALSE"
ec ca.key
openssl req -x509 -new -key ca.key -out ca.crt -days 30 -subj "/CN=Test CA"
openssl req -x509 -new -key ca.key -out other.crt -days 30 -subj "/CN=Another CA"
signed san somebody DNS:localhost,IP:127.0.0.1
signed cn localhost ""
signed elsewhere localhost DNS:db.elsewhere.example,DNS:*.wild.example
signed client cert_role ""
openssl pkey -in client.key -out client_der.key -outform DER
openssl pkcs8 -topk8 -in client.key -out client_locked.key -v2 aes256 -passout pass:opensesame
cat >ca.cnf <<'C'
[ca]
default_ca = c
[c]
database = index.txt
serial = serial.txt
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
policy = p
default_days = 30
default_crl_days = 30
unique_subject = no
[p]
commonName = supplied
[v3]
basicConstraints = critical,CA:TRUE
C
: >index.txt; echo 1000 >serial.txt
ec expired.key
openssl req -new -key expired.key -out expired.csr -subj "/CN=Expired CA"
openssl ca -batch -config ca.cnf -selfsign -keyfile expired.key -in expired.csr -out expired_ca.crt -startdate 20200101000000Z -enddate 20200201000000Z -extensions v3 -notext 2>/dev/null
ec old.key
openssl req -new -key old.key -out old.csr -subj "/CN=localhost"
openssl x509 -req -in old.csr -CA expired_ca.crt -CAkey expired.key -CAcreateserial -out old.crt -days 30 2>/dev/null
openssl ca -config ca.cnf -gencrl -out empty.crl 2>/dev/null
openssl ca -config ca.cnf -revoke san.crt 2>/dev/null
openssl ca -config ca.cnf -gencrl -out san.crl 2>/dev/null
mkdir crls; cp san.crl "crls/$(openssl crl -in san.crl -noout -hash).r0"
chmod 700 crls
