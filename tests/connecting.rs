//! Connecting: every way of encryption and of authentication, each held against libpq: `psql` with the same string.
//!
//!     source  ── TLS with one certificate after the other, pg_hba.conf by role ──▶
//!     target  a stopped copy of it: a dry run that gets in says that no rewind is required
//!
//! Both get in or both fail, both or neither by TLS (the server's log says which), and why libpq failed stands in what
//! kbrecover says, word by word.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{
    AsServerUser, Failover, Installation, Rewind, Run, Sandbox, Server, assert_same_content, assert_sound,
    command, command_as, give_to_server_user, run, run_command, server_program,
};

const PASSWORD: &str = "correct horse";

/// A server that can do everything, a target, certificates, and the home directory of the clients.
struct Site {
    source: Server,
    target: Server,
    certificates: PathBuf,
    home: PathBuf,
}

/// How a connection came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stream {
    Plain,
    Tls,
}

impl Site {
    fn new(sandbox: &Sandbox, mut source: Server) -> Site {
        let target = source.copy("target");
        let certificates = make_certificates(sandbox);
        let user =
            String::from_utf8(run(Command::new("id").arg("-un").as_server_user()).stdout).expect("a name");
        source.write("pg_ident.conf", format!("os {} peer_role\n", user.trim()));
        let hba = "local all peer_role peer map=os\nlocal all scram_role scram-sha-256\nlocal all all trust\n\
                   host all scram_role all scram-sha-256\nhost all md5_role all md5\n\
                   host all password_role all password\nhostssl all cert_role all cert\n\
                   hostssl all tls_role all trust\nhostnossl all plain_role all trust\n\
                   hostssl replication scram_role all scram-sha-256\nhost all trust_role all trust\n";
        source.write("pg_hba.conf", hba);
        source.listen_on_loopback();
        source.set("ssl", "on");
        source.set("log_connections", "on");
        let site = Site { home: sandbox.make_dir("home"), source, target, certificates };
        site.use_certificate("san");
        site
    }

    fn start(&mut self) {
        self.source.start();
        for role in ["scram", "password", "peer", "cert", "tls", "plain", "trust"] {
            self.source.sql(&format!(
                "SET password_encryption = 'scram-sha-256';
                 CREATE ROLE {role}_role LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'"
            ));
        }
        self.source.sql(&format!(
            "SET password_encryption = 'md5'; CREATE ROLE md5_role LOGIN SUPERUSER PASSWORD '{PASSWORD}'"
        ));
    }

    fn file(&self, name: &str) -> String {
        self.certificates.join(name).to_str().expect("UTF-8").into()
    }

    /// The server shows this certificate to whoever connects from now on.
    fn use_certificate(&self, name: &str) {
        let file = |kind: &str| self.file(&format!("{name}.{kind}"));
        let lines = format!("ssl_cert_file = '{}'\nssl_key_file = '{}'\n", file("crt"), file("key"));
        self.source
            .write("postgresql.auto.conf", format!("{lines}ssl_ca_file = '{}'\n", self.file("ca.crt")));
        if self.source.is_running() {
            self.source.sql("SELECT pg_reload_conf()");
            self.source.wait_for(
                &format!("certificate {name}"),
                &format!("SELECT current_setting('ssl_cert_file') = '{}'", file("crt")),
            );
        }
    }

    fn kbrecover(&self, conninfo: &str, env: &[(&str, &str)]) -> Run {
        let mut command = command(["rewind", "--dry-run", "-j", "1", "--target-data"]);
        command.arg(&self.target.data).arg("--source-server").arg(conninfo).env("HOME", &self.home);
        run_command_in(command, env)
    }

    fn psql(&self, conninfo: &str, env: &[(&str, &str)]) -> Run {
        let mut psql = server_program("psql");
        psql.args(["-X", "-w", "-A", "-t", "-c", "SELECT 1", "-d", conninfo]).env("HOME", &self.home);
        run_command_in(psql, env)
    }

    /// How the connection came about that the server's log tells of from this byte on.
    fn stream_since(&self, begin: usize) -> Stream {
        let log = self.log();
        let line = log[begin..].lines().find(|line| line.contains("connection authorized"));
        let line = line.unwrap_or_else(|| panic!("no connection\n{}", &log[begin..]));
        if line.contains("SSL enabled") { Stream::Tls } else { Stream::Plain }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.source.log()).expect("read the server's log")
    }

    /// Connects both ways. Both succeed alike, or both fail for the same reasons, which are returned.
    fn compare(&self, options: &str, env: &[(&str, &str)]) -> Result<Stream, String> {
        let port = self.source.port;
        let conninfo = match options.contains("://") {
            true => options.to_owned(),
            false => format!("hostaddr=127.0.0.1 port={port} dbname=postgres {options}"),
        };
        let begin = self.log().len();
        let psql = self.psql(&conninfo, env);
        let middle = self.log().len();
        let run = self.kbrecover(&conninfo, env);
        if psql.code != 0 {
            assert_eq!(run.code, 1, "{options}: libpq fails\n{psql}\nkbrecover does not\n{run}");
            for line in psql.stderr.lines().filter(|line| !line.starts_with('\t')) {
                let reason =
                    line.strip_prefix("psql: error: ").or(line.strip_prefix("WARNING: ")).unwrap_or(line);
                // What libpq says to do is our hint.
                if !reason.starts_with("Either provide the file") {
                    assert!(run.stderr.contains(reason), "{options}: libpq says\n{psql}\nkbrecover\n{run}");
                }
            }
            return Err(run.stderr);
        }
        assert_eq!(run.code, 0, "{options}: libpq gets in, kbrecover does not\n{run}");
        let (theirs, ours) = (self.stream_since(begin), self.stream_since(middle));
        assert_eq!(ours, theirs, "{options}: of kbrecover, of libpq\n{run}");
        Ok(ours)
    }

    #[track_caller]
    fn gets_in(&self, options: &str, stream: Stream) {
        assert_eq!(self.compare(options, &[]), Ok(stream), "{options}");
    }

    #[track_caller]
    fn fails(&self, options: &str, reason: &str) {
        let said = self.compare(options, &[]).expect_err(options);
        assert!(said.contains(reason), "{options} does not fail with: {reason}\n{said}");
    }
}

fn run_command_in(mut command: Command, env: &[(&str, &str)]) -> Run {
    command.envs(env.iter().copied());
    run_command(command)
}

fn make_certificates(sandbox: &Sandbox) -> PathBuf {
    let directory = sandbox.make_dir("certificates");
    let script = include_str!("harness/certificates.sh");
    run(Command::new("sh").args(["-c", script]).as_server_user().current_dir(&directory));
    directory
}

fn usual(sandbox: &Sandbox) -> Site {
    let mut site = Site::new(sandbox, sandbox.server("source"));
    site.start();
    site
}

/// The four usual kinds of server certificate, and every sslmode on each.
#[test]
fn every_sslmode_with_every_kind_of_certificate() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let other = site.file("other.crt");
    for (certificate, root) in
        [("self_ca", "self_ca"), ("self_leaf", "self_leaf"), ("san", "ca"), ("cn", "ca")]
    {
        site.use_certificate(certificate);
        let root = site.file(&format!("{root}.crt"));
        let by_name = |options: &str| format!("host=localhost user=trust_role {options}");
        site.gets_in(&by_name("sslmode=disable"), Stream::Plain);
        site.gets_in(&by_name("sslmode=allow"), Stream::Plain);
        for mode in ["prefer", "require"] {
            site.gets_in(&by_name(&format!("sslmode={mode}")), Stream::Tls);
        }
        for mode in ["prefer", "require", "verify-ca", "verify-full"] {
            site.gets_in(&by_name(&format!("sslmode={mode} sslrootcert={root}")), Stream::Tls);
        }
        // Roots that do not fit: prefer goes on without TLS, all stronger modes fail.
        site.gets_in(&by_name(&format!("sslmode=prefer sslrootcert={other}")), Stream::Plain);
        for mode in ["require", "verify-ca", "verify-full"] {
            let options = by_name(&format!("sslmode={mode} sslrootcert={other}"));
            site.fails(&options, "SSL error: certificate verify failed");
        }
        let elsewhere = format!("host=db.elsewhere.example user=trust_role sslrootcert={root}");
        site.gets_in(&format!("{elsewhere} sslmode=verify-ca"), Stream::Tls);
        site.fails(&format!("{elsewhere} sslmode=verify-full"), "does not match host name");
    }
}

#[test]
fn names_and_roots() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let root = site.file("ca.crt");
    let full = |host: &str| format!("host={host} user=tls_role sslmode=verify-full sslrootcert={root}");
    site.gets_in(&full("127.0.0.1"), Stream::Tls);
    site.gets_in(&full("LOCALHOST"), Stream::Tls);
    site.fails(&full("127.0.0.2"), "(and 1 other name) does not match host name \"127.0.0.2\"");
    // The common name does not count where there are names of this kind.
    site.fails(&full("somebody"), "does not match host name \"somebody\"");
    site.fails(&full("''"), "host name must be specified for a verified SSL connection");
    site.use_certificate("elsewhere");
    site.gets_in(&full("a.wild.example"), Stream::Tls);
    for host in ["wild.example", "a.b.wild.example", "localhost"] {
        site.fails(&full(host), "does not match host name");
    }
    // An address has no name of its kind in it, so the common name counts.
    site.fails(&full("127.0.0.1"), "does not match host name");

    site.fails("host=localhost user=tls_role sslmode=verify-ca", "root.crt\" does not exist");
    site.fails(
        "host=localhost user=tls_role sslmode=verify-full sslrootcert=/nowhere",
        "\"/nowhere\" does not exist",
    );
    let key = site.file("ca.key");
    site.fails(
        &format!("host=localhost user=tls_role sslmode=require sslrootcert={key}"),
        "could not read root certificate file",
    );
    let run = site.kbrecover(
        &format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=tls_role sslrootcert=system",
            site.source.port
        ),
        &[],
    );
    run.expect_said("SSL error: certificate verify failed: ");

    site.use_certificate("old");
    let expired = site.file("expired_ca.crt");
    for mode in ["require", "verify-ca", "verify-full"] {
        let options = format!("host=localhost user=tls_role sslmode={mode} sslrootcert={expired}");
        site.fails(&options, "SSL error: certificate verify failed: certificate has expired");
    }
}

#[test]
fn revoked_certificates() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let verified =
        format!("host=localhost user=tls_role sslmode=verify-full sslrootcert={}", site.file("ca.crt"));
    site.gets_in(&format!("{verified} sslcrl={}", site.file("empty.crl")), Stream::Tls);
    for revoked in [format!("sslcrl={}", site.file("san.crl")), format!("sslcrldir={}", site.file("crls"))] {
        site.fails(&format!("{verified} {revoked}"), "certificate verify failed: certificate revoked");
    }
    site.gets_in(&format!("{verified} sslcrl=/nowhere"), Stream::Tls);
    site.use_certificate("cn");
    site.gets_in(&format!("{verified} sslcrldir={}", site.file("crls")), Stream::Tls);
}

#[test]
fn client_certificates() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let with = |key: &str, more: &str| {
        let (cert, key) = (site.file("client.crt"), site.file(key));
        format!("host=localhost user=cert_role sslmode=require sslcert={cert} sslkey={key} {more}")
    };
    for key in ["client.key", "client_der.key"] {
        site.gets_in(&with(key, ""), Stream::Tls);
    }
    site.gets_in(&with("client_locked.key", "sslpassword=opensesame"), Stream::Tls);
    let wrong = with("client_locked.key", "sslpassword=opensesami");
    site.fails(&wrong, "could not load private key file");
    // psql would ask at the terminal.
    let without = wrong.replace("sslpassword=opensesami", "hostaddr=127.0.0.1");
    let without = site.kbrecover(&format!("{without} port={}", site.source.port), &[]);
    without.expect_said("could not load private key file");
    site.fails(&with("san.key", ""), "key values mismatch");
    site.fails(&with("nothing.key", ""), "certificate present, but not private key file");
    site.fails(&with("crls", ""), "is not a regular file");
    site.fails(
        "host=localhost user=cert_role sslmode=require",
        "connection requires a valid client certificate",
    );
    site.fails(
        "host=localhost user=cert_role sslmode=require sslcert=/nowhere",
        "requires a valid client certificate",
    );
    let other = format!(
        "host=localhost user=cert_role sslmode=require sslcert={} sslkey={}",
        site.file("self_leaf.crt"),
        site.file("self_leaf.key")
    );
    assert!(site.kbrecover(&format!("{other} hostaddr=127.0.0.1 port={}", site.source.port), &[]).code == 1);
    set_mode(&site.certificates.join("client.key"), 0o640);
    site.fails(&with("client.key", ""), "has group or world access");
    set_mode(&site.certificates.join("client.key"), 0o600);

    // The usual places below the home directory.
    let usual = site.home.join(".postgresql");
    run(Command::new("mkdir").arg(&usual).as_server_user());
    for (from, to) in
        [("client.crt", "postgresql.crt"), ("client.key", "postgresql.key"), ("ca.crt", "root.crt")]
    {
        run(Command::new("cp").args(["-p", &site.file(from)]).arg(usual.join(to)).as_server_user());
    }
    site.gets_in("host=localhost user=cert_role sslmode=verify-full", Stream::Tls);
    run(Command::new("cp").arg(site.file("san.crl")).arg(usual.join("root.crl")).as_server_user());
    site.fails("host=localhost user=cert_role sslmode=verify-full", "certificate revoked");
}

#[test]
fn ways_of_authentication() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    for role in ["scram", "md5", "password"] {
        for (mode, stream) in [("disable", Stream::Plain), ("prefer", Stream::Tls), ("require", Stream::Tls)]
        {
            site.gets_in(&format!("user={role}_role sslmode={mode} password='{PASSWORD}'"), stream);
            let wrong = format!("user={role}_role sslmode={mode} password=wrong");
            site.fails(&wrong, &format!("password authentication failed for user \"{role}_role\""));
            site.fails(&format!("user={role}_role sslmode={mode}"), "fe_sendauth: no password supplied");
        }
    }
    site.gets_in("user=trust_role sslmode=allow", Stream::Plain);
    site.gets_in("user=tls_role sslmode=allow", Stream::Tls);
    site.gets_in("user=plain_role sslmode=prefer", Stream::Plain);
    site.fails("user=plain_role sslmode=require", "no pg_hba.conf entry");
    site.fails("user=tls_role sslmode=disable", "no pg_hba.conf entry");
    site.fails("user=nobody sslmode=prefer", "no pg_hba.conf entry");

    // Bound to the TLS stream, or not.
    let bound = |options: &str| format!("user=scram_role password='{PASSWORD}' channel_binding={options}");
    for (options, stream) in [
        ("require", Stream::Tls),
        ("prefer", Stream::Tls),
        ("disable", Stream::Tls),
        ("disable sslmode=disable", Stream::Plain),
    ] {
        site.gets_in(&bound(options), stream);
    }
    site.fails(&bound("require sslmode=disable"), "channel binding required, but SSL not in use");
    for role in ["md5", "password"] {
        site.fails(
            &format!("user={role}_role password='{PASSWORD}' channel_binding=require"),
            "channel binding required but not supported by server's authentication request",
        );
    }
    site.fails(
        "user=trust_role channel_binding=require",
        "channel binding required, but server authenticated client without channel binding",
    );

    // On a Unix socket sslmode means nothing.
    let local = |options: &str| format!("hostaddr='' host={} {options}", site.source.host());
    site.gets_in(&local("user=peer_role sslmode=require"), Stream::Plain);
    site.gets_in(
        &local(&format!("user=scram_role password='{PASSWORD}' sslmode=verify-full")),
        Stream::Plain,
    );
    site.fails(&local("user=scram_role password=wrong"), "password authentication failed");
    site.fails(
        &local("user=trust_role requirepeer=nobody"),
        "requirepeer specifies \"nobody\", but actual peer user name is",
    );
}

/// A password that the server has refused is not sent once more without encryption. (With sslmode=prefer, libpq does so
/// after a refusal over TLS.)
#[test]
fn a_refused_login_is_not_repeated() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let mut without_tls = sandbox.server("without_tls");
    without_tls.write("pg_hba.conf", "local all all trust\nhost all all all scram-sha-256\n");
    without_tls.listen_on_loopback();
    without_tls.start();
    without_tls.sql(&format!("CREATE ROLE scram_role LOGIN PASSWORD '{PASSWORD}'"));
    let refusals = |source: &Server, role: &str, mode: &str| {
        let log = || std::fs::read_to_string(source.log()).expect("read the server's log");
        let begin = log().len();
        let address = format!("hostaddr=127.0.0.1 port={} dbname=postgres", source.port);
        let run = site.kbrecover(&format!("{address} user={role}_role password=wrong sslmode={mode}"), &[]);
        assert_eq!(run.code, 1, "{run}");
        run.expect_said("password authentication failed for user");
        log()[begin..].matches("FATAL:  password authentication failed").count()
    };
    for role in ["scram", "md5", "password"] {
        assert_eq!(refusals(&site.source, role, "prefer"), 1, "{role}");
        // Without TLS, and then, as in libpq, with it.
        assert_eq!(refusals(&site.source, role, "allow"), 2, "{role}");
    }
    for mode in ["prefer", "allow"] {
        assert_eq!(refusals(&without_tls, "scram", mode), 1, "{mode}");
    }
}

/// psql 15 does not know require_auth: what the server's log says must do.
#[test]
fn required_ways_of_authentication() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let dial = |role: &str, options: &str| {
        let port = site.source.port;
        let text = format!("host=127.0.0.1 port={port} user={role}_role password='{PASSWORD}' {options}");
        site.kbrecover(&format!("{text} dbname=postgres"), &[])
    };
    for (role, methods) in [
        ("scram", "scram-sha-256"),
        ("scram", "md5,scram-sha-256"),
        ("scram", "!md5,!password"),
        ("scram", "!none"),
        ("md5", "md5"),
        ("password", "password"),
        ("trust", "none"),
        ("trust", "!password"),
    ] {
        let run = dial(role, &format!("require_auth={methods}"));
        assert_eq!(run.code, 0, "{role} {methods}\n{run}");
    }
    for (role, methods, reason) in [
        ("scram", "md5", "server requested SASL authentication"),
        ("md5", "scram-sha-256", "server requested a hashed password"),
        ("password", "!password", "server requested a cleartext password"),
        ("trust", "scram-sha-256", "server did not complete authentication"),
        ("trust", "!none", "server did not complete authentication"),
    ] {
        let run = dial(role, &format!("require_auth={methods}"));
        assert_eq!(run.code, 1, "{role} {methods}\n{run}");
        run.expect_said(&format!("authentication method requirement \"{methods}\" failed: {reason}"));
    }
}

/// Services, password files and variables; addresses in all their spellings.
#[test]
fn where_options_come_from() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let port = site.source.port.to_string();
    let in_home = |name: &str, text: &str| {
        let path = site.home.join(name);
        std::fs::write(&path, text).expect("write");
        set_mode(&path, 0o600);
        give_to_server_user(&path);
        path
    };
    let passfile = in_home(
        ".pgpass",
        &format!("# a\n127.0.0.1:{port}:*:scram_role:wrong\n*:{port}:postgres:*:{PASSWORD}\n"),
    );
    site.gets_in("host=localhost user=scram_role", Stream::Tls);
    site.gets_in("host=localhost user=md5_role", Stream::Tls);
    let said = site.compare("user=scram_role", &[]).expect_err("the first line has a wrong password");
    assert!(said.contains(&format!("password retrieved from file \"{}\"", passfile.display())), "{said}");
    set_mode(&passfile, 0o644);
    let said = site.compare("host=localhost user=scram_role", &[]).expect_err("open to all");
    assert!(said.contains("has group or world access; permissions should be u=rw (0600) or less"), "{said}");
    let elsewhere = in_home("elsewhere", &format!("localhost:{port}:postgres:scram_role:{PASSWORD}\n"));
    let elsewhere = elsewhere.to_str().expect("UTF-8");
    site.gets_in(&format!("host=localhost user=scram_role passfile={elsewhere}"), Stream::Tls);
    let variables = [("PGPASSFILE", elsewhere), ("PGHOST", "localhost"), ("PGUSER", "scram_role")];
    assert_eq!(site.compare("sslmode=disable", &variables), Ok(Stream::Plain));
    let given = [("PGPASSWORD", PASSWORD), ("PGSSLMODE", "disable")];
    assert_eq!(site.compare("user=scram_role", &given), Ok(Stream::Plain));
    assert_eq!(site.compare("user=scram_role sslmode=require", &given), Ok(Stream::Tls));

    // KingbaseES's names of the same, where PostgreSQL's are not set; not under the name of PostgreSQL's program.
    let conninfo = format!("hostaddr=127.0.0.1 port={port} dbname=postgres");
    let theirs =
        [("KINGBASE_USER", "scram_role"), ("KINGBASE_PASSWORD", PASSWORD), ("KINGBASE_SSLMODE", "disable")];
    let run = site.kbrecover(&conninfo, &theirs);
    assert_eq!(run.code, 0, "{run}");
    let both = [&theirs[..], &[("PGUSER", "plain_role")], &[("PGSSLMODE", "require")]].concat();
    site.kbrecover(&conninfo, &both).expect_said("user \"plain_role\"");
    for (name, code) in [("sys_rewind", 0), ("pg_rewind", 1)] {
        let mut command = command_as(name, ["-n", "--source-server", &conninfo, "-D"]);
        command.arg(&site.target.data).env("HOME", &site.home);
        let run = run_command_in(command, &theirs);
        assert_eq!(run.code, code, "{name}\n{run}");
    }

    in_home(".pg_service.conf", &format!("[db]\nuser=scram_role\npassword={PASSWORD}\nsslmode=disable\n"));
    site.gets_in("service=db", Stream::Plain);
    site.gets_in("service=db sslmode=require", Stream::Tls);
    assert_eq!(site.compare("", &[("PGSERVICE", "db")]), Ok(Stream::Plain));
    site.fails("service=other", "definition of service \"other\" not found");

    let password = PASSWORD.replace(' ', "%20");
    site.gets_in(
        &format!("postgresql://scram_role:{password}@127.0.0.1:{port}/postgres?sslmode=require"),
        Stream::Tls,
    );
    site.gets_in(&format!("postgres://localhost:{port}/postgres?user=trust_role&ssl=true"), Stream::Tls);
    site.gets_in("hostaddr=127.1 user=trust_role options='-c work_mem=1MB' connect_timeout=5", Stream::Tls);
    site.fails("user=trust_role options='-c no_such_setting=1'", "unrecognized configuration parameter");
}

/// As in libpq the next server is tried if one is not reached, and is not if one refuses.
#[test]
fn several_servers() {
    let sandbox = Sandbox::new();
    let site = usual(&sandbox);
    let (port, nobody) = (site.source.port, unused_port());
    let list = |hosts: &str, ports: &str, more: &str| {
        format!("hostaddr='' host={hosts} port={ports} user=trust_role {more}")
    };
    let here = port.to_string();
    site.gets_in(&list("127.0.0.1,localhost", &format!("{nobody},{here}"), ""), Stream::Tls);
    site.gets_in(&list(&format!("{},127.0.0.1", sandbox.path("none").display()), &here, ""), Stream::Tls);
    site.gets_in(&list("127.0.0.1,127.0.0.1", &here, "target_session_attrs=primary"), Stream::Tls);
    for attrs in ["standby", "read-only"] {
        let options = list("127.0.0.1", &here, &format!("target_session_attrs={attrs}"));
        site.fails(
            &options,
            if attrs == "standby" { "server is not in hot standby mode" } else { "session is not read-only" },
        );
    }
    site.gets_in(&list("127.0.0.1", &here, "target_session_attrs=prefer-standby"), Stream::Tls);
    site.gets_in(&list("127.0.0.1", &here, "target_session_attrs=read-write"), Stream::Tls);
    site.fails(&list("127.0.0.1,localhost", &format!("{nobody},{nobody}"), ""), "Connection refused");
    // A server that refuses is the last.
    let refused = list("127.0.0.1,127.0.0.1", &format!("{here},{nobody}"), "sslmode=disable");
    let said = site.compare(&refused.replace("trust_role", "tls_role"), &[]).expect_err("refused");
    assert!(!said.contains("Connection refused"), "{said}");

    // psql 15 does not know load_balance_hosts. In 40 runs both orders come; that they do not has odds of 2^-39.
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let options = list("127.0.0.1,127.0.0.2", &format!("{nobody},{nobody}"), "load_balance_hosts=random");
        let run = site.kbrecover(&options, &[]);
        assert_eq!(run.code, 1, "{run}");
        first.insert(run.stderr.find("127.0.0.1") < run.stderr.find("127.0.0.2"));
        if first.len() == 2 {
            break;
        }
    }
    assert_eq!(first.len(), 2, "always the same order");
}

/// Something that listens and says nothing; connect_timeout covers the whole handshake.
#[test]
fn a_server_that_does_not_answer() {
    let sandbox = Sandbox::new();
    let target = sandbox.server("target");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = silent.local_addr().expect("address").port();
    for mode in ["disable", "prefer", "require"] {
        let begin = Instant::now();
        let conninfo = format!("host=127.0.0.1 port={port} user=u sslmode={mode} connect_timeout=2");
        let run = Rewind::of(&target).arg("--source-server").arg(conninfo).run_leaving_target_alone();
        assert_eq!(run.code, 1, "{run}");
        run.expect_said(&format!(
            "connection to server at \"127.0.0.1\", port {port} failed: timeout expired"
        ));
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    }
}

/// Not only 15: SCRAM bound to TLS, md5 and client certificates, with the oldest and the newest server; and TLS
/// without asking first, which servers know from 17 on.
#[test]
fn other_versions() {
    for major in [10, 12, 18] {
        let sandbox = Sandbox::new();
        let source = sandbox.initdb("source", Installation::of(major), &[]);
        let mut site = Site::new(&sandbox, source);
        site.start();
        let root = site.file("ca.crt");
        let full = format!("host=localhost sslmode=verify-full sslrootcert={root}");
        for role in ["scram", "md5", "password"] {
            site.gets_in(&format!("{full} user={role}_role password='{PASSWORD}'"), Stream::Tls);
        }
        let (cert, key) = (site.file("client.crt"), site.file("client.key"));
        site.gets_in(&format!("{full} user=cert_role sslcert={cert} sslkey={key}"), Stream::Tls);
        let port = site.source.port;
        let ours = |options: &str| {
            let text = format!("{full} hostaddr=127.0.0.1 port={port} user=scram_role password='{PASSWORD}'");
            site.kbrecover(&format!("{text} dbname=postgres {options}"), &[])
        };
        // SCRAM is bound from 11 on.
        let bound = ours("channel_binding=require");
        match major {
            10 => {
                drop(bound.expect_said(
                    "server did not offer an authentication method that supports channel binding",
                ))
            }
            _ => assert_eq!(bound.code, 0, "{major}: {bound}"),
        }
        let direct = ours("sslnegotiation=direct");
        match major {
            18 => assert_eq!(direct.code, 0, "{direct}"),
            _ => assert_eq!(direct.code, 1, "{direct}"),
        }
    }
}

/// A whole rewind over TLS, after which the node follows by what `-R` has written.
#[test]
fn a_rewind_over_tls() {
    let sandbox = Sandbox::new();
    let certificates = make_certificates(&sandbox);
    let root = certificates.join("ca.crt").display().to_string();
    let mut old = sandbox.server("old");
    old.write("pg_hba.conf", "local all all trust\nlocal replication all trust\nhostssl all scram_role all scram-sha-256\nhostssl replication scram_role all scram-sha-256\n");
    let mut new = old.copy("new");
    for (name, file) in [("ssl_cert_file", "san.crt"), ("ssl_key_file", "san.key")] {
        new.set(name, &certificates.join(file).display().to_string());
    }
    new.set("ssl", "on");
    new.listen_on_loopback();
    old.start();
    new.follow(&old);
    new.start();
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| {
            old.sql(&format!("CREATE ROLE scram_role LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'"));
            old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)");
        },
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
    );
    old.kill();
    let conninfo = format!(
        "host=localhost hostaddr=127.0.0.1 port={} dbname=postgres user=scram_role password='{PASSWORD}' \
         sslmode=verify-full sslrootcert={root} channel_binding=require",
        new.port
    );
    let rewind = Rewind::of(&old).arg("--source-server").arg(conninfo).arg("-R");
    rewind.run().expect_done().expect_said("2 connection(s)");
    old.start();
    old.catch_up(&new);
    let ssl: bool = new.value("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)");
    assert!(ssl, "the standby streams over TLS");
    assert_same_content(&old, &new);
    assert_sound(&mut old);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("change a mode");
}

/// A port nobody listens on: taken by a socket of another kind.
fn unused_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.local_addr().expect("address").port()
}

/// The corpus that unit tests hold against our parser says what libpq says.
#[test]
fn the_corpus_is_what_libpq_makes_of_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent");
    let libraries = root.join("target/servers/18/lib");
    let mut command = Command::new("python3");
    command.arg(root.join("tests/conninfo_corpus.py")).arg(libraries.join("libpq.so.5"));
    run(command.env("LD_LIBRARY_PATH", &libraries));
}
