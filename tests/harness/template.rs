//! What `initdb` makes, made once and kept on disk: clusters are copies of it.
//!
//!     target/clusters/KEY        a data directory that never changes once it has this name
//!     target/clusters/.new...    one being made; it is renamed when it is whole
//!
//! The key holds all that makes a difference: version and build of the programs, options, settings, the user. Copies of one
//! template have one system identifier, as the nodes of a failover must; for a cluster that must not see
//! [`super::Sandbox::stranger`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use super::installation::Installation;
use super::program::{give_to_server_user, run};
use super::sandbox::{copy_tree, workshop};

/// initdb's options for every cluster.
const INITDB: [&str; 6] = [
    "--data-checksums",
    "--no-sync",
    "--no-locale",
    "--encoding=UTF8",
    "--auth=trust",
    "--username=postgres",
];

/// Copies the template of these programs, options and settings to `data`, which is to be made.
pub fn copy_template(installation: &Installation, options: &[&str], settings: &str, data: &Path) {
    // One thread of this process makes it; another process may make it as well, and the first to be done wins.
    static MAKING: Mutex<()> = Mutex::new(());
    let template = directory().join(key(installation, options, settings));
    {
        let _making = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !template.exists() {
            make(installation, options, settings, &template);
        }
    }
    copy_tree(&template, data);
}

/// Makes a cluster that is nobody's copy.
pub fn initdb(installation: &Installation, options: &[&str], settings: &str, data: &Path) {
    run(installation.program("initdb").args(INITDB).args(options).arg("-D").arg(data));
    let path = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&path).expect("read postgresql.conf");
    std::fs::write(&path, format!("{text}\n{settings}\n")).expect("write postgresql.conf");
    give_to_server_user(&path);
    put_settings_into_control(installation, data);
}

fn make(installation: &Installation, options: &[&str], settings: &str, template: &Path) {
    // Cargo's directory may lie where the servers' user cannot go.
    let made = tempfile::Builder::new().prefix("template-").tempdir_in(workshop()).expect("make a directory");
    give_to_server_user(made.path());
    let data = made.path().join("data");
    initdb(installation, options, settings, &data);
    let parent = template.parent().expect("a directory of templates");
    let new = tempfile::Builder::new().prefix(".new").tempdir_in(parent).expect("make a directory");
    let whole = new.path().join("data");
    copy_tree(&data, &whole);
    if let Err(error) = std::fs::rename(&whole, template) {
        assert!(template.exists(), "make {}: {error}", template.display());
    }
}

fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clusters");
    std::fs::create_dir_all(&directory).unwrap_or_else(|e| panic!("create {}: {e}", directory.display()));
    directory
}

fn key(installation: &Installation, options: &[&str], settings: &str) -> String {
    let program = installation.bindir.join("postgres");
    let program = std::fs::metadata(&program).unwrap_or_else(|e| panic!("stat {}: {e}", program.display()));
    let version = run(installation.program("postgres").arg("--version")).stdout;
    let user = std::fs::metadata("/proc/self").expect("stat /proc/self").uid();
    let mut hasher = DefaultHasher::new();
    (program.len(), version, INITDB, options, settings, user).hash(&mut hasher);
    format!("{}-{:016x}", installation.major, hasher.finish())
}

/// pg_control learns max_connections and the like at a start; a standby of a fresh copy compares them with its own.
fn put_settings_into_control(installation: &Installation, data: &Path) {
    let mut server = installation.program("postgres");
    run(server.args(["--single", "-D"]).arg(data).arg("postgres").stdin(Stdio::null()));
}
