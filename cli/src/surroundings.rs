//! Limits of the process that are made up for before anything else is done.

use std::env;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Command, ExitCode};
use std::thread::Builder;

use rustix::process::{Resource, getrlimit};

/// The variable that limits the parts into which the C library divides memory.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Where the address space is limited (`ulimit -v`), starts this program again with a setting that saves it: glibc reserves 64
/// MiB for each thread otherwise. If that fails, the program goes on as it is.
pub(crate) fn save_address_space() {
    let is_limited = getrlimit(Resource::As).current.is_some();
    if !is_limited || env::var_os(ARENAS).is_some() {
        return;
    }
    let mut arguments = env::args_os();
    if let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) {
        // It returns only if it fails.
        let _ = Command::new(program).arg0(name).args(arguments).env(ARENAS, "1").exec();
    }
}

/// The smallest stack, in bytes, on which the program runs, and the one that it gives itself instead of a smaller one.
const LEAST_STACK: u64 = 2 << 20;
const STACK: usize = 8 << 20;

/// Runs `work`, on a thread with a large stack if that of the process is small (`ulimit -s`): a program whose stack is used up
/// ends without a word.
pub(crate) fn with_large_stack(work: fn() -> ExitCode) -> ExitCode {
    let is_small = getrlimit(Resource::Stack).current.is_some_and(|limit| limit < LEAST_STACK);
    let thread = is_small.then(|| Builder::new().name("main".to_owned()).stack_size(STACK).spawn(work));
    match thread {
        Some(Ok(thread)) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        _ => work(),
    }
}
