//! An sshd of the servers' user between the nodes, who may log in by a key made here.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::Sandbox;
use super::nodes::address;
use super::ports::free_port;
use super::program::{AsServerUser, run};

/// It listens on the addresses of all nodes. Dropping it stops it.
pub struct Sshd {
    process: Child,
    port: u16,
    key: PathBuf,
}

impl Sshd {
    /// Starts it.
    pub fn start(sandbox: &Sandbox) -> Sshd {
        let port = free_port();
        let dir = sandbox.make_dir("ssh");
        for key in ["key", "host_key"] {
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(key))
                .as_server_user());
        }
        let shown = dir.display();
        let listen: String = (1..=3).map(|node| format!("ListenAddress {}\n", address(node))).collect();
        let conf = format!(
            "Port {port}\n{listen}HostKey {shown}/host_key\nAuthorizedKeysFile {shown}/key.pub\nPidFile {shown}/pid\nStrictModes no\n\
             Subsystem sftp internal-sftp\nUsePAM no\nPasswordAuthentication no\nPrintMotd no\n"
        );
        fs::write(dir.join("sshd_config"), conf).expect("write sshd_config");
        let log = fs::File::create(dir.join("log")).expect("make sshd's log");
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).as_server_user();
        sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = sshd.spawn().expect("run sshd: install openssh-server");
        Sshd { process, port, key: dir.join("key") }
    }

    /// Options of ssh and of scp to get in.
    pub fn options(&self) -> String {
        format!(
            "-q -o Port={} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10",
            self.port,
            self.key.display()
        )
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
