//! A password is shown by nothing: no message, no plan, no JSON, not the process list.
//!
//!     in the string (bare, quoted, escaped, URI, URI's query) · PGPASSWORD · password file · service · sslpassword
//!       × refused before connecting · nobody listens · the server refuses it · it gets in · -R writes it
//!
//! Everything printed is searched for it, and `/proc/PID/cmdline` while the program waits for a silent server.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{Run, Sandbox, Server, command, command_as, give_to_server_user, run_command};

/// No part of any word that is printed.
const SECRET: &str = "Zq7xKw9";

/// What each place of a password adds: to a string of pairs, and to the environment.
type Place = (&'static str, String, Vec<(&'static str, String)>);

fn places(home: &Path) -> Vec<Place> {
    let file = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = home.join(name);
        std::fs::write(&path, text).expect("write a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("close a file");
        give_to_server_user(&path);
        path.to_str().expect("UTF-8").to_owned()
    };
    let passfile = file("passfile", &format!("*:*:*:*:{SECRET}\n"));
    let services = file("services", &format!("[db]\npassword={SECRET}\nsslpassword={SECRET}\n"));
    let broken = file("broken", &format!("[db]\npassword={SECRET}\npassword {SECRET}\n{SECRET}\n"));
    vec![
        ("bare", format!("password={SECRET}"), vec![]),
        ("quoted", format!("password = 'a {SECRET} \\' {SECRET}'"), vec![]),
        ("escaped", format!("password=a\\ {SECRET}\\'{SECRET}"), vec![]),
        ("sslpassword", format!("sslpassword={SECRET} sslcert=/nowhere sslkey=/nowhere"), vec![]),
        ("variable", String::new(), vec![("PGPASSWORD", SECRET.to_owned())]),
        ("password file", format!("passfile={passfile}"), vec![]),
        ("service", "service=db".to_owned(), vec![("PGSERVICEFILE", services)]),
        ("broken service", "service=db".to_owned(), vec![("PGSERVICEFILE", broken)]),
    ]
}

/// Strings that are refused before anybody is asked, each with the password somewhere.
fn refused() -> Vec<String> {
    let mut texts: Vec<String> = [
        "password=S host",
        "password='S",
        "password=a S",
        "password S",
        "password=S sslmode=x",
        "password=S port=x",
        "password=S hostaddr=x",
        "password=S hots=x",
        "passwrod=S",
        "host=a,b,c port=1,2 password=S",
        "password=S require_auth=x",
        "password = S = x",
        "password=S service=none",
        "password=S gssencmode=require",
        "password=x S=x",
        "postgresql://u:S@[h",
        "postgresql://u:S@[]",
        "postgresql://u:S@[::1]x",
        "postgresql://u:S%@h",
        "postgresql://u:S%00@h",
        "postgresql://u:S/x@h",
        "postgresql://u:S@h?S",
        "postgresql://u:S@h?x=y",
        "postgresql://u:S@h?a=b=c",
        "postgresql://u:S@h:x",
        "postgresql://h?password=S&",
        "postgresql://h?password=S&x",
        "postgresql://h?password=S%zz",
        "postgresql://h?user=u&password=S=S",
        "postgres://u:p:S@h:x/d",
    ]
    .map(str::to_owned)
    .into();
    texts.extend(texts.clone().iter().map(|text| format!("{text} ")));
    texts.iter().map(|text| text.replace('S', SECRET)).collect()
}

fn rewind(target: &Server, conninfo: &str, more: &[&str], env: &[(&'static str, String)]) -> Run {
    let mut command = command(["rewind", "--no-sync", "--debug", "--format", "json", "--target-data"]);
    command.arg(&target.data).arg("--source-server").arg(conninfo).args(more);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    run_command(command)
}

#[track_caller]
fn assert_silent(run: &Run, what: &str) {
    assert!(!run.stdout.contains(SECRET) && !run.stderr.contains(SECRET), "{what} shows the password\n{run}");
}

/// A server that wants a password over TCP, and a stopped copy of it.
fn site(sandbox: &Sandbox, password: &str) -> (Server, Server) {
    let mut source = sandbox.server("source");
    let target = source.copy("target");
    source.write("pg_hba.conf", "local all all trust\nhost all,replication all all scram-sha-256\n");
    source.listen_on_loopback();
    source.start();
    source.sql(&format!("CREATE ROLE r LOGIN SUPERUSER PASSWORD '{password}'"));
    (source, target)
}

#[test]
fn in_no_output() {
    let sandbox = Sandbox::new();
    let places = places(&sandbox.make_dir("home"));
    let (source, target) = site(&sandbox, "another");
    let nobody =
        std::net::UdpSocket::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    for text in refused() {
        let run = rewind(&target, &text, &["--dry-run"], &[]);
        assert_eq!(run.code, 1, "{text:?} is refused\n{run}");
        assert_silent(&run, &text);
    }
    for (place, options, env) in &places {
        for port in [nobody, source.port] {
            let text = format!("host=127.0.0.1 port={port} user=r dbname=postgres {options}");
            let run = rewind(&target, &text, &["--dry-run"], env);
            assert_eq!(run.code, 1, "{place}: it is wrong\n{run}");
            assert_silent(&run, place);
        }
    }
    // Right now, and written for the standby where it does not find it.
    source.sql(&format!("ALTER ROLE r PASSWORD '{SECRET}'"));
    for place in ["bare", "variable", "password file", "service"] {
        let (_, options, env) = places.iter().find(|(name, ..)| *name == place).expect("a place");
        let text = format!("host=127.0.0.1 port={} user=r dbname=postgres {options}", source.port);
        let run = rewind(&target, &text, &["-R"], env);
        assert_eq!(run.code, 0, "{place}\n{run}");
        assert_silent(&run, place);
        let auto = target.data.join("postgresql.auto.conf");
        let written = std::fs::read_to_string(&auto).expect("read postgresql.auto.conf");
        assert_eq!(written.contains(SECRET), place != "password file", "{place}: {written}");
        target.write("postgresql.auto.conf", "");
    }
    let uri = format!("postgresql://r:{SECRET}@127.0.0.1:{}/postgres", source.port);
    let run = rewind(&target, &uri, &["--dry-run"], &[]);
    assert_eq!(run.code, 0, "{run}");
    assert_silent(&run, "a URI");
    // A string that was not quoted for the shell.
    for pieces in [["host=a", "password=S"], ["postgresql://u:S@h", "S"], ["host=a password='b S'", "c"]] {
        let pieces = pieces.map(|piece| piece.replace('S', SECRET));
        let run = rewind(&target, &pieces[0], &[&pieces[1]], &[]);
        if pieces[1] != SECRET {
            assert_silent(&run, &pieces.join(" "));
        }
        assert_eq!(run.code, 1, "{run}");
    }
}

/// By its own name and as `pg_rewind`; as long as it works, and it works on.
#[test]
fn not_in_the_process_list() {
    let sandbox = Sandbox::new();
    let target = sandbox.server("target");
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = silent.local_addr().expect("address");
    // Without TLS it does not come a second time when it is turned away.
    let strings = [
        format!("host=127.0.0.1 port={} user=u password='x {SECRET}' sslmode=disable", address.port()),
        format!("postgresql://u:{SECRET}@{address}/d?sslmode=disable"),
        format!("postgresql://u@{address}/d?sslmode=disable&password={SECRET}"),
        format!("host=127.0.0.1 port={} user=u sslmode=disable password\t=\n{SECRET}", address.port()),
        // More than a pipe surely takes.
        format!(
            "{} host=127.0.0.1 port={} user=u sslmode=disable password={SECRET}",
            "options=x ".repeat(9000),
            address.port()
        ),
    ];
    for (text, persona) in strings.iter().flat_map(|text| [(text, false), (text, true)]) {
        let mut command = match persona {
            false => command(["rewind"]),
            true => command_as("pg_rewind", [] as [&str; 0]),
        };
        command.arg("--source-server").arg(text).arg("--target-pgdata").arg(&target.data);
        let mut process = command.stderr(std::process::Stdio::piped()).spawn().expect("run");
        // It is connected: whatever it does at its start is done.
        let (connection, _) = silent.accept().expect("accept");
        let of = |file: &str| std::fs::read(format!("/proc/{}/{file}", process.id())).expect("read /proc");
        let (arguments, name) = (of("cmdline"), of("comm"));
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        assert!(!arguments.contains(SECRET), "{text}: {arguments}");
        assert!(arguments.contains("--target-pgdata") && arguments.contains("********"), "{arguments}");
        let expected = if persona { "pg_rewind" } else { "kbrecover" };
        assert_eq!(String::from_utf8_lossy(&name).trim(), expected);
        assert!(arguments.split(' ').next().is_some_and(|first| first.ends_with(expected)), "{arguments}");
        drop(connection);
        let begin = Instant::now();
        while process.try_wait().expect("wait").is_none() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
