use std::collections::HashMap;
use std::path::PathBuf;

use super::*;

struct Env(HashMap<&'static str, &'static str>);

impl Environment for Env {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }

    fn os_user(&self) -> Option<String> {
        Some("me".to_owned())
    }

    fn home(&self) -> Option<PathBuf> {
        Some(PathBuf::from("/nowhere"))
    }
}

fn parse_in(text: &str, env: &[(&'static str, &'static str)]) -> Result<Conninfo, ConninfoError> {
    Conninfo::parse(text, &Env(env.iter().copied().collect()))
}

fn version(name: &str) -> Version {
    Version::all().find(|version| version.name() == name).expect("a version")
}

fn parse(text: &str) -> Conninfo {
    parse_in(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    parse_in(text, &[]).expect_err(text).to_string()
}

fn given(text: &str) -> Vec<(&'static str, String)> {
    let conninfo = parse(text);
    conninfo.values.given().map(|(option, value)| (option.keyword, value.to_owned())).collect()
}

fn servers(text: &str) -> Vec<String> {
    parse(text).candidates().iter().map(ToString::to_string).collect()
}

#[test]
fn pairs() {
    for (text, expected) in [
        ("", vec![]),
        ("host=h port=5433", vec![("host", "h"), ("port", "5433")]),
        ("  user = a\tdbname= b ", vec![("user", "a"), ("dbname", "b")]),
        (r"user='it\'s' dbname='a b\\c'", vec![("user", "it's"), ("dbname", r"a b\c")]),
        (r"user=a\ b\'c dbname=''", vec![("user", "a b'c")]),
        ("user=first user=last", vec![("user", "last")]),
        ("user='a'dbname=b", vec![("user", "a"), ("dbname", "b")]),
        ("user=trailing\\", vec![("user", "trailing")]),
        ("dbname=user=x", vec![("dbname", "user=x")]),
        ("user= dbname=x", vec![("user", "dbname=x")]),
        ("user=ü", vec![("user", "ü")]),
        (
            "host=192.168.1.101 port=54321 user=SUPERMANAGER_V8ADMIN dbname=TEST",
            vec![
                ("user", "SUPERMANAGER_V8ADMIN"),
                ("dbname", "TEST"),
                ("host", "192.168.1.101"),
                ("port", "54321"),
            ],
        ),
        (
            "host=h passfile=/tmp/x sslmode=verify-ca options='-c statement_timeout=0'",
            vec![
                ("passfile", "/tmp/x"),
                ("host", "h"),
                ("options", "-c statement_timeout=0"),
                ("sslmode", "verify-ca"),
            ],
        ),
        (
            "host=h sslcert=/c sslkey=/k gsslib=gssapi",
            vec![("host", "h"), ("sslcert", "/c"), ("sslkey", "/k"), ("gsslib", "gssapi")],
        ),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k, v.to_owned())).collect();
        assert_eq!(given(text), expected, "{text}");
    }
}

#[test]
fn uris() {
    for (text, expected) in [
        ("postgresql://", vec![]),
        ("postgres://h", vec![("host", "h")]),
        ("postgresql:///db", vec![("dbname", "db")]),
        ("postgresql://h?", vec![("host", "h")]),
        ("postgresql://@h", vec![("host", "h")]),
        (
            "postgresql://u:p@h:5433/db?connect_timeout=2&application_name=a%20b",
            vec![
                ("user", "u"),
                ("password", "p"),
                ("connect_timeout", "2"),
                ("dbname", "db"),
                ("host", "h"),
                ("port", "5433"),
                ("application_name", "a b"),
            ],
        ),
        (
            "postgresql://u:p@h/db?sslmode=verify-full&sslrootcert=/x",
            vec![
                ("user", "u"),
                ("password", "p"),
                ("dbname", "db"),
                ("host", "h"),
                ("sslmode", "verify-full"),
                ("sslrootcert", "/x"),
            ],
        ),
        // The `@` of a query is not the one after a user.
        ("postgresql://h/db?user=a@b", vec![("user", "a@b"), ("dbname", "db"), ("host", "h")]),
        ("postgresql://h/?user=u&", vec![("user", "u"), ("host", "h")]),
        ("postgresql://h?user=a@b", vec![("user", "h?user=a"), ("host", "b")]),
        ("postgresql://u%40x:p%3A%2F@/d%2Fb", vec![("user", "u@x"), ("password", "p:/"), ("dbname", "d/b")]),
        ("postgresql://u:a:b@h", vec![("user", "u"), ("password", "a:b"), ("host", "h")]),
        ("postgresql://%2Ftmp/db", vec![("dbname", "db"), ("host", "/tmp")]),
        ("postgresql:///db?host=/tmp&port=1", vec![("dbname", "db"), ("host", "/tmp"), ("port", "1")]),
        ("postgresql://h/db?ssl=true", vec![("dbname", "db"), ("host", "h"), ("sslmode", "require")]),
        ("postgresql://[::1]:5433,b,c:1/", vec![("host", "::1,b,c"), ("port", "5433,,1")]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k, v.to_owned())).collect();
        assert_eq!(given(text), expected, "{text}");
    }
}

#[test]
fn what_libpq_refuses_is_refused() {
    for (text, expected) in [
        ("hots=x", "invalid connection option \"hots\""),
        ("keepalives_retries=1", "invalid connection option \"keepalives_retries\""),
        ("host", "missing \"=\" after \"host\" in connection info string"),
        ("host x", "missing \"=\" after \"host\" in connection info string"),
        ("user='x", "unterminated quoted string in connection info string"),
        ("user='x\\'", "unterminated quoted string in connection info string"),
        ("port=x", "invalid port number: \"x\""),
        ("port=0", "invalid port number: \"0\""),
        ("port=65536", "invalid port number: \"65536\""),
        ("host=a,b,c port=1,2", "could not match 2 port numbers to 3 hosts"),
        ("host=a,b hostaddr=::1", "could not match 2 host names to 1 hostaddr values"),
        ("hostaddr=name", "could not parse network address \"name\""),
        ("hostaddr=fe80::1%eth0", "could not parse network address \"fe80::1%eth0\""),
        ("sslmode=on", "invalid sslmode value: \"on\""),
        ("target_session_attrs=writer", "invalid target_session_attrs value: \"writer\""),
        ("connect_timeout=1s", "invalid integer value \"1s\" for connection option \"connect_timeout\""),
        ("keepalives=yes", "invalid integer value \"yes\" for connection option \"keepalives\""),
        ("service=foo", "connection service files are not supported"),
        ("postgresql://h?x=y", "invalid URI query parameter: \"x\""),
        ("postgresql://h?&", "missing key/value separator \"=\" in URI"),
        ("postgresql://h?user=u&&", "missing key/value separator \"=\" in URI"),
        ("postgresql://h?user", "missing key/value separator \"=\" in URI"),
        ("postgresql://h?user=a=b", "extra key/value separator \"=\" in URI"),
        ("postgresql://[::1", "missing \"]\" after an IPv6 host address in URI"),
        ("postgresql://[]", "empty IPv6 host address in URI"),
        ("postgresql://[::1]x", "unexpected character after \"]\" in URI"),
        ("postgresql://u:%00@h", "invalid percent-encoded token in the password of the URI"),
        ("postgresql://%zz", "invalid percent-encoded token in the host of the URI"),
        ("postgresql://%4", "invalid percent-encoded token in the host of the URI"),
        ("postgresql://%+1", "invalid percent-encoded token in the host of the URI"),
        ("postgresql://%ff", "invalid percent-encoded token in the host of the URI"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn hosts_ports_and_defaults() {
    assert_eq!(
        servers(""),
        ["server on socket \"/var/run/postgresql/.s.PGSQL.5432\"", "server on socket \"/tmp/.s.PGSQL.5432\""]
    );
    assert_eq!(servers("host=/s port=1"), ["server on socket \"/s/.s.PGSQL.1\""]);
    assert_eq!(servers("host=@abstract"), ["server on socket \"@abstract/.s.PGSQL.5432\""]);
    assert_eq!(servers("host=a,b port=7"), ["server at \"a\", port 7", "server at \"b\", port 7"]);
    assert_eq!(servers("host=a,b port=,7"), ["server at \"a\", port 5432", "server at \"b\", port 7"]);
    assert_eq!(servers("host=n hostaddr=::1"), ["server at \"n\" (::1), port 5432"]);
    assert_eq!(servers("postgres://[::1]:2,b"), ["server at \"::1\", port 2", "server at \"b\", port 5432"]);
    let conninfo = parse("host=h");
    assert_eq!((conninfo.user(), conninfo.database()), ("me", "me"));
    assert_eq!(conninfo.connect_timeout(), Some(DEFAULT_CONNECT_TIMEOUT));
    assert_eq!(parse("connect_timeout=0").connect_timeout(), None);
}

#[test]
fn the_environment_fills_gaps_only() {
    let env =
        [("PGHOST", "e"), ("PGPORT", "9"), ("PGDATABASE", "ed"), ("PGPASSWORD", "ep"), ("PGSSLMODE", "")];
    let conninfo = parse_in("host=h user=u", &env).unwrap();
    assert_eq!(conninfo.candidates()[0].to_string(), "server at \"h\", port 9");
    assert_eq!((conninfo.user(), conninfo.database()), ("u", "ed"));
    assert_eq!(conninfo.candidates()[0].password.as_ref().unwrap().expose(), "ep");
    assert!(parse_in("", &[("PGSERVICE", "s")]).is_err());
    assert!(parse_in("", &[("PGPORT", "x")]).is_err());
}

#[test]
fn units_are_those_of_libpq() {
    let config = |text: &str| {
        let conninfo = parse(text);
        conninfo.config(&conninfo.candidates()[0])
    };
    let seen =
        config("host=h tcp_user_timeout=30000 keepalives_count=4 keepalives_idle=5 keepalives_interval=6");
    assert_eq!(seen.get_tcp_user_timeout(), Some(&Duration::from_secs(30)));
    assert_eq!(seen.get_keepalives_retries(), Some(4));
    assert_eq!(seen.get_keepalives_idle(), Duration::from_secs(5));
    assert_eq!(seen.get_keepalives_interval(), Some(Duration::from_secs(6)));
    assert!(seen.get_keepalives() && !config("host=h keepalives=0").get_keepalives());
    assert_eq!(config("fallback_application_name=f").get_application_name(), Some("f"));
    assert_eq!(config("fallback_application_name=f application_name=a").get_application_name(), Some("a"));
    assert!(seen.get_hosts().is_empty(), "the address is added by whoever connects");
}

#[test]
fn protections_that_cannot_be_given_are_not_ignored() {
    let unsupported = |text: &str| {
        let conninfo = parse(text);
        conninfo.unsupported(&conninfo.candidates()[0].address).map(|option| option.keyword)
    };
    for plain in ["host=h", "host=h sslmode=allow", "host=/s sslmode=require", "host=h requirepeer=x"] {
        assert_eq!(unsupported(plain), None, "{plain}");
    }
    assert_eq!(unsupported("host=h sslmode=verify-full"), Some("sslmode"));
    assert_eq!(unsupported("host=h gssencmode=require"), Some("gssencmode"));
    assert_eq!(unsupported("host=/s requirepeer=postgres"), Some("requirepeer"));
    assert_eq!(unsupported("host=/s channel_binding=require"), Some("channel_binding"));
    assert_eq!(unsupported("host=h require_auth=scram-sha-256"), Some("require_auth"));
}

#[test]
fn primary_conninfo_is_what_the_original_writes() {
    let conninfo =
        parse("host=/tmp/a-b port=5433 user=u dbname=d fallback_application_name=x replication=true");
    assert_eq!(
        conninfo.primary_conninfo(version("15")),
        "user=u passfile='/nowhere/.pgpass' channel_binding=prefer host='/tmp/a-b' port=5433 sslmode=prefer \
         ssl_min_protocol_version=TLSv1.2 gssencmode=prefer krbsrvname=postgres target_session_attrs=any"
    );
    assert!(conninfo.primary_conninfo(version("18")).contains(" dbname=d "));
    assert!(!parse("user=u").primary_conninfo(version("18")).contains("dbname"));
    let text = parse(r"host=h user='it\'s' password='a\\b'").primary_conninfo(version("15"));
    assert!(text.starts_with(r"user='it\'s' password='a\\b' channel_binding=prefer host=h "), "{text}");
}

#[test]
fn an_old_libpq_is_given_no_default_it_does_not_know() {
    let conninfo = parse("host=h user=u");
    let common = "user=u host=h port=5432 sslmode=prefer krbsrvname=postgres";
    assert_eq!(conninfo.primary_conninfo(version("9.6")), common);
    let twelve = conninfo.primary_conninfo(version("12"));
    assert!(twelve.contains(" gssencmode=prefer ") && twelve.contains("target_session_attrs"), "{twelve}");
    assert!(!twelve.contains("channel_binding") && !twelve.contains("ssl_min"), "{twelve}");
    assert!(!conninfo.primary_conninfo(version("11")).contains("gssencmode"));
    // What was asked for is not silently dropped: a libpq may be newer than its server.
    let given = parse("host=h channel_binding=disable").primary_conninfo(version("11"));
    assert!(given.contains("channel_binding=disable"), "{given}");
}

#[test]
fn what_is_written_reads_back() {
    let text =
        parse(r"host=h user='it\'s a \\' password=p application_name=' '").primary_conninfo(version("15"));
    let again = parse(&text);
    assert_eq!(again.primary_conninfo(version("15")), text);
    assert_eq!(again.user(), "it's a \\");
}

#[test]
fn passwords_do_not_show() {
    let conninfo = parse("postgresql://u:topsecret@h/db?sslpassword=hidden&sslkey=/k");
    let shown = format!("{conninfo:?} {} {:?}", conninfo.redacted(), conninfo.candidates());
    assert!(!shown.contains("topsecret") && !shown.contains("hidden"), "{shown}");
    assert_eq!(
        conninfo.redacted(),
        "user=u password=******** dbname=db host=h sslkey='/k' sslpassword=********"
    );
    // Nor in errors about what stands beside them.
    for text in ["postgresql://u:topsecret@[h", "postgresql://u:topsecret%@h", "password='topsecret"] {
        assert!(!error(text).contains("topsecret"), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(postgresql://)?[a-z=:@/?&%' \\\\\\[\\],0-9ü]*") {
        let _ = parse_in(&text, &[]);
    }

    #[test]
    fn any_value_survives_quoting(value in "[^\0]+") {
        let conninfo = parse(&format!("user={}", quoted(&value)));
        proptest::prop_assert_eq!(conninfo.user(), value);
    }
}
