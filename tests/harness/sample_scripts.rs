//! The pool with pgpool-II's own sample scripts, as its manual sets them up: real ssh between the nodes, one configuration
//! for all servers, and a program directory in which `pg_rewind` is this program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Sandbox;
use super::nodes::{Nodes, address};
use super::program::{AsServerUser, bindir, give_to_server_user, run};
use super::sandbox::bindir_with_our_pg_rewind;
use super::sshd::Sshd;

/// Where Debian's package has them.
const SAMPLES: &str = "/usr/share/doc/pgpool2/examples";

/// The scripts with their settings filled in, and the sshd they need.
pub struct SampleScripts {
    dir: PathBuf,
    #[expect(dead_code, reason = "it runs as long as the scripts may be called")]
    sshd: Sshd,
}

impl SampleScripts {
    /// Fills in the settings; the pool listens for its control programs at `pcp_port`.
    pub fn new(sandbox: &Sandbox, nodes: &Nodes, pcp_port: u16) -> SampleScripts {
        let sshd = Sshd::start(sandbox);
        let dir = sandbox.make_dir("scripts");
        bindir_with_our_pg_rewind(sandbox, bindir());
        let user =
            String::from_utf8(run(Command::new("id").arg("-un").as_server_user()).stdout).expect("UTF-8");
        let user = user.trim();
        if user != "postgres" {
            nodes.sql(1, &format!("CREATE ROLE \"{user}\" LOGIN SUPERUSER REPLICATION"));
        }
        let settings = [
            ("PGHOME", sandbox.path("").display().to_string()),
            ("ARCHIVEDIR", sandbox.path("archive").display().to_string()),
            ("REPLUSER", user.into()),
            ("PCP_USER", "kingbase".into()),
            ("PGPOOL_PATH", "/usr/sbin".into()),
            ("PCP_PORT", pcp_port.to_string()),
            ("POSTGRESQL_STARTUP_USER", user.into()),
            ("SSH_OPTIONS", format!("'{}'", sshd.options())),
        ];
        for script in ["failover.sh", "follow_primary.sh"] {
            fill_in(&Path::new(SAMPLES).join(format!("{script}.sample")), &dir.join(script), &settings);
        }
        let passwords = dir.join("pcppass");
        nodes.write(&passwords, "*:*:kingbase:secret pcp\n");
        run(Command::new("chmod").arg("600").arg(&passwords));
        SampleScripts { dir, sshd }
    }

    /// What is to be added to `pgpool.conf`.
    pub fn pool_settings(&self) -> String {
        let dir = self.dir.display();
        format!(
            "failover_command = '{dir}/failover.sh %d %h %p %D %m %H %M %P %r %R %N %S'\n\
             follow_primary_command = '{dir}/follow_primary.sh %d %h %p %D %m %H %M %P %r %R'\n"
        )
    }

    /// The environment of the scripts: the file with the password of the pool's control programs.
    pub fn environment(&self) -> (&'static str, PathBuf) {
        ("PCPPASSFILE", self.dir.join("pcppass"))
    }

    /// Calls follow_primary.sh for a node, as the pool does.
    pub fn follow_primary(&self, nodes: &Nodes, node: usize, primary: usize) -> String {
        let (index, port) = (|node: usize| (node - 1).to_string(), nodes.port.to_string());
        let mut script = Command::new(self.dir.join("follow_primary.sh"));
        script.args([&index(node), &address(node), &port]).arg(nodes.data(node));
        script.args([&index(primary), &address(primary), "0", "0", &port]).arg(nodes.data(primary));
        let (name, value) = self.environment();
        let output = script.env(name, value).as_server_user().output().expect("run follow_primary.sh");
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{said}");
        said
    }
}

/// What differs between the servers goes to a file beside the data directory, and where a standby streams from to the
/// file that the scripts write: so that any node's `postgresql.conf` is right for all, as the scripts have it.
pub fn share_configuration(nodes: &Nodes) {
    for node in 1..=3 {
        let data = nodes.data(node);
        let own = fs::read_to_string(data.join("postgresql.conf")).expect("read postgresql.conf");
        nodes.write(&nodes.home(node).join("db/node.conf"), &own);
        let upstream =
            fs::read_to_string(data.join("postgresql.auto.conf")).expect("read postgresql.auto.conf");
        nodes.write(&data.join("myrecovery.conf"), &upstream);
        nodes.write(
            &data.join("postgresql.conf"),
            "include '../node.conf'\ninclude_if_exists 'myrecovery.conf'\n",
        );
        nodes.write(&data.join("postgresql.auto.conf"), "");
        nodes.sql(node, "SELECT pg_reload_conf()");
    }
    nodes.wait("both standbys to stream", || nodes.streaming(1).len() == 2);
}

/// Copies a script and replaces the lines that set these variables.
fn fill_in(sample: &Path, script: &Path, settings: &[(&str, String)]) {
    let text =
        fs::read_to_string(sample).unwrap_or_else(|e| panic!("{}: {e}: install pgpool2", sample.display()));
    let set = |line: &str| {
        let found = settings
            .iter()
            .find(|(name, _)| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')));
        found.map_or(format!("{line}\n"), |(name, value)| format!("{name}={value}\n"))
    };
    fs::write(script, text.lines().map(set).collect::<String>()).expect("write a script");
    give_to_server_user(script);
    run(Command::new("chmod").arg("755").arg(script));
}
