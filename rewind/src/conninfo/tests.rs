use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walparse::Version;

use super::error::ConninfoError;
use super::parsed::DEFAULT_CONNECT_TIMEOUT;
use super::written::quoted;
use super::*;

/// Variables, and a home directory.
struct Env(HashMap<&'static str, String>, PathBuf);

impl Environment for Env {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn os_user(&self) -> Option<String> {
        Some("me".to_owned())
    }

    fn home(&self) -> Option<PathBuf> {
        Some(self.1.clone())
    }
}

fn parse_in(text: &str, env: &[(&'static str, &str)]) -> Result<Conninfo, ConninfoError> {
    parse_at(Path::new("/nowhere"), text, env)
}

fn parse_at(home: &Path, text: &str, env: &[(&'static str, &str)]) -> Result<Conninfo, ConninfoError> {
    let env = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Conninfo::parse(text, &Env(env, home.to_owned()))
}

fn as_original(conninfo: &Conninfo, name: &str) -> String {
    conninfo.primary_conninfo(version(name), WrittenPassword::IfGiven)
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
        ("port=x", "invalid integer value \"x\" for connection option \"port\""),
        ("port=0", "invalid port number: \"0\""),
        ("port=65536", "invalid port number: \"65536\""),
        ("host=a,b,c port=1,2", "could not match 2 port numbers to 3 hosts"),
        ("host=a,b hostaddr=::1", "could not match 2 host names to 1 hostaddr values"),
        ("hostaddr=name", "could not parse network address \"name\": Name or service not known"),
        ("hostaddr=fe80::1%", "could not parse network address \"fe80::1%\": Name or service not known"),
        ("sslmode=on", "invalid sslmode value: \"on\""),
        ("target_session_attrs=writer", "invalid target_session_attrs value: \"writer\""),
        ("connect_timeout=1s", "invalid integer value \"1s\" for connection option \"connect_timeout\""),
        ("keepalives=yes", "invalid integer value \"yes\" for connection option \"keepalives\""),
        ("service=foo", "definition of service \"foo\" not found"),
        ("postgresql://u:s3cret/x@h", "invalid integer value \"...\" for connection option \"port\""),
        ("postgresql://u:123456/x@h", "invalid port number: \"...\""),
        ("gssencmode=require", "gssencmode value \"require\" invalid when GSSAPI support is not compiled in"),
        ("sslcertmode=require", "sslcertmode value \"require\" is not supported (check OpenSSL version)"),
        ("min_protocol_version=3.2", "connection option \"min_protocol_version\" is not supported"),
        ("scram_client_key=x", "connection option \"scram_client_key\" is not supported"),
        ("postgresql://h?x=y", "invalid URI query parameter: \"x\""),
        ("postgresql://h?&", "missing key/value separator \"=\" in URI query parameter"),
        ("postgresql://h?user=u&&", "missing key/value separator \"=\" in URI query parameter"),
        ("postgresql://h?user", "missing key/value separator \"=\" in URI query parameter"),
        ("postgresql://h?user=a=b", "extra key/value separator \"=\" in URI query parameter"),
        (
            "postgresql://[::1",
            "end of string reached when looking for matching \"]\" in IPv6 host address in URI",
        ),
        ("postgresql://[]", "IPv6 host address may not be empty in URI"),
        ("postgresql://[::1]x", "unexpected character behind \"]\" in URI (expected \":\" or \"/\")"),
        ("postgresql://u:%00@h", "forbidden value %00 in percent-encoded value: the password of the URI"),
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
    assert_eq!(servers("host=n hostaddr=::1"), ["server at \"::1\", port 5432"]);
    assert_eq!(servers("hostaddr=fe80::1%eth0"), ["server at \"fe80::1%eth0\", port 5432"]);
    assert_eq!(servers("hostaddr=127.1"), ["server at \"127.1\", port 5432"]);
    assert_eq!(servers("postgres://[::1]:2,b"), ["server at \"::1\", port 2", "server at \"b\", port 5432"]);
    let conninfo = parse("host=h");
    assert_eq!((conninfo.user(), conninfo.database()), ("me", "me"));
    assert_eq!(conninfo.connect_timeout(), Some(DEFAULT_CONNECT_TIMEOUT));
    assert_eq!(parse("connect_timeout=0").connect_timeout(), None);
}

#[test]
fn the_environment_fills_gaps_only() {
    let env = [("PGHOST", "e"), ("PGPORT", "9"), ("PGDATABASE", "ed"), ("PGPASSWORD", "ep")];
    let conninfo = parse_in("host=h user=u", &env).unwrap();
    assert_eq!(conninfo.candidates()[0].to_string(), "server at \"h\", port 9");
    assert_eq!((conninfo.user(), conninfo.database()), ("u", "ed"));
    assert_eq!(conninfo.candidates()[0].password.as_ref().unwrap().expose(), b"ep");
    assert!(parse_in("", &[("PGSERVICE", "s")]).is_err());
    assert!(parse_in("", &[("PGPORT", "x")]).is_err());
    assert!(parse_in("", &[("PGSSLMODE", "")]).is_err());
    let mode = |env: &[(&'static str, &str)]| parse_in("", env).unwrap().encryption().mode;
    assert_eq!(mode(&[("PGREQUIRESSL", "1")]), SslMode::Require);
    assert_eq!(mode(&[("PGREQUIRESSL", "1"), ("PGSSLMODE", "allow")]), SslMode::Allow);
    assert_eq!(mode(&[("PGSSLROOTCERT", "system")]), SslMode::VerifyFull);
}

#[test]
fn units_are_those_of_libpq() {
    let tcp =
        parse("host=h tcp_user_timeout=30001 keepalives_count=4 keepalives_idle=5 keepalives_interval=6");
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let expected = TcpOptions {
        keepalives: true,
        idle: seconds(5),
        interval: seconds(6),
        count: Some(4),
        user_timeout: Some(30001),
    };
    assert_eq!(tcp.tcp(), &expected);
    let unset = parse("host=h keepalives=0 keepalives_idle=0 keepalives_count=-1").tcp().clone();
    assert!(!unset.keepalives && unset.idle.is_none() && unset.count.is_none());

    let config = |text: &str| {
        let conninfo = parse(text);
        conninfo.config(&conninfo.candidates()[0])
    };
    assert_eq!(config("fallback_application_name=f").get_application_name(), Some("f"));
    assert_eq!(config("fallback_application_name=f application_name=a").get_application_name(), Some("a"));
    assert!(config("host=h").get_hosts().is_empty(), "the address is added by whoever connects");
}

#[test]
fn a_service_comes_before_the_environment_and_after_the_string() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pg_service.conf");
    let text = "# ours\n[other]\nhost=wrong\n\n[db] anything\n  host=one\nhost=two\nport=5433\npassword=s3cret\n[db]\nuser=x\n";
    fs::write(&file, text).unwrap();
    let env = [("PGPORT", "9"), ("PGDATABASE", "d"), ("PGUSER", "u")];
    let conninfo = parse_at(home.path(), "service=db user=me", &env).unwrap();
    assert_eq!(conninfo.candidates()[0].to_string(), "server at \"one\", port 5433");
    assert_eq!((conninfo.user(), conninfo.database()), ("me", "d"));
    assert!(!format!("{conninfo:?}").contains("s3cret"));
    let named = [("PGSERVICE", "other")];
    assert_eq!(parse_at(home.path(), "", &named).unwrap().candidates()[0].host_name(), Some("wrong"));

    // A second file, which the home directory's comes before; one that the environment names hides it.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("pg_service.conf"), "[db]\nhost=late\n[far]\nhost=far\n").unwrap();
    let dir = elsewhere.path().to_str().unwrap();
    let system = [("PGSYSCONFDIR", dir)];
    let host = |text, env: &[(&'static str, &str)]| {
        parse_at(home.path(), text, env).map(|found| found.candidates()[0].host_name().unwrap().to_owned())
    };
    assert_eq!(host("service=db", &system).unwrap(), "one");
    assert_eq!(host("service=far", &system).unwrap(), "far");
    let path = format!("{dir}/pg_service.conf");
    assert_eq!(host("service=db", &[("PGSERVICEFILE", &path)]).unwrap(), "late");
    let missing = host("service=db", &[("PGSERVICEFILE", "/nowhere/f")]).unwrap_err();
    assert_eq!(missing.to_string(), "service file \"/nowhere/f\" not found");
    for (line, problem) in [
        ("service=x", "nested service specifications not supported"),
        ("hots=x", "syntax error"),
        ("host = x", "syntax error"),
        ("password s3cret", "syntax error"),
        ("ldap://h/x", "LDAP lookup is not supported"),
    ] {
        fs::write(&file, format!("[db]\nport=1\n{line}\n")).unwrap();
        let shown = host("service=db", &[]).unwrap_err().to_string();
        assert_eq!(shown, format!("{problem} in service file \"{}\", line 3", file.display()), "{line}");
    }
}

#[test]
fn primary_conninfo_is_what_the_original_writes() {
    let conninfo =
        parse("host=/tmp/a-b port=5433 user=u dbname=d fallback_application_name=x replication=true");
    assert_eq!(
        as_original(&conninfo, "15"),
        "user=u passfile='/nowhere/.pgpass' channel_binding=prefer host='/tmp/a-b' port=5433 sslmode=prefer \
         sslcompression=0 sslsni=1 ssl_min_protocol_version=TLSv1.2 gssencmode=prefer krbsrvname=postgres target_session_attrs=any"
    );
    let newest = as_original(&conninfo, "18");
    assert!(newest.contains(" sslnegotiation=postgres sslcompression=0 sslsni=1 "), "{newest}");
    assert!(newest.ends_with(" target_session_attrs=any load_balance_hosts=disable dbname=d"), "{newest}");
    assert!(!as_original(&parse("user=u"), "18").contains("dbname"));
    let text = as_original(&parse(r"host=h user='it\'s' password='a\\b'"), "15");
    assert!(text.starts_with(r"user='it\'s' password='a\\b' channel_binding=prefer host=h "), "{text}");
}

#[test]
fn an_old_libpq_is_given_no_default_it_does_not_know() {
    let conninfo = parse("host=h user=u");
    let common = "user=u host=h port=5432 sslmode=prefer krbsrvname=postgres";
    assert_eq!(as_original(&conninfo, "9.6"), common);
    let twelve = as_original(&conninfo, "12");
    assert!(twelve.contains(" gssencmode=prefer ") && twelve.contains("target_session_attrs"), "{twelve}");
    assert!(!twelve.contains("channel_binding") && !twelve.contains("ssl_min"), "{twelve}");
    assert!(!as_original(&conninfo, "11").contains("gssencmode"));
    // What was asked for is not silently dropped: a libpq may be newer than its server.
    let given = as_original(&parse("host=h channel_binding=disable"), "11");
    assert!(given.contains("channel_binding=disable"), "{given}");
}

#[test]
fn a_password_the_standby_finds_by_itself_is_not_written() {
    let home = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let passfile = put("pass", "h:5432:replication:u:p\nh:5432:*:u:other\n");
    let given = |text: &str| parse_at(home.path(), text, &[]).unwrap();
    let written = |conninfo: &Conninfo, password| conninfo.primary_conninfo(version("15"), password);
    let holds = |conninfo: &Conninfo| written(conninfo, WrittenPassword::IfNeeded).contains("password=");

    let same = given(&format!("host=h user=u password=p passfile={passfile}"));
    assert!(!holds(&same));
    assert!(written(&same, WrittenPassword::IfGiven).contains("password=p"), "the original writes it");
    assert!(holds(&given(&format!("host=h user=u password=q passfile={passfile}"))), "another one");
    assert!(holds(&given(&format!("host=h,i user=u password=p passfile={passfile}"))), "for one host only");
    assert!(holds(&given("host=h user=u password=p")), "nowhere else");
    let conninfo = given(&format!("host=h user=u passfile={passfile}"));
    assert!(!written(&conninfo, WrittenPassword::IfGiven).contains("password="));

    let service = put(".pg_service.conf", "[db]\nhost=h\npassword=p\n");
    let conninfo = given("service=db user=u");
    let text = written(&conninfo, WrittenPassword::IfNeeded);
    assert!(text.starts_with("service=db user=u channel_binding=") && !text.contains("password"), "{text}");
    assert!(written(&conninfo, WrittenPassword::IfGiven).contains("password=p"));
    // The standby's environment does not name that file.
    let conninfo = parse_at(home.path(), "service=db user=u", &[("PGSERVICEFILE", &service)]).unwrap();
    let text = written(&conninfo, WrittenPassword::IfNeeded);
    assert!(text.contains("password=p") && !text.contains("service="), "{text}");
}

#[test]
fn what_is_written_reads_back() {
    let text = as_original(&parse(r"host=h user='it\'s a \\' password=p application_name=' '"), "15");
    let again = parse(&text);
    assert_eq!(as_original(&again, "15"), text);
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
