//! Compares methods of writing changed blocks to a file: `pwrite`, `pwritev` and `mmap`.
//!
//!     cargo bench --bench write_methods -- [--megabytes 1024] [--blocks 8192] [--runs 3]
//!
//! The engine writes each range with one `pwrite`, in ascending order, and syncs the file at the end. A real target is
//! usually not in the page cache ("cold"), because its server has been stopped. The default sizes are only a smoke test.

#![allow(clippy::disallowed_methods, reason = "a benchmark writes what it needs")]
#![allow(clippy::print_stdout, reason = "it prints its results")]
#![allow(unsafe_code, reason = "mapping a file for writing is one of the methods")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use memmap2::MmapMut;
use rustix::fs::{Advice, fadvise};

const BLOCK: u64 = 8192;

/// The blocks to write: the first block of each run, and the number of blocks in a run.
struct Pattern {
    name: &'static str,
    starts: Vec<u64>,
    run: u64,
}

type Method = fn(&File, &Pattern, &[u8]) -> io::Result<()>;

const METHODS: [(&str, Method); 4] =
    [("pwrite per block", blocks), ("pwrite per run", runs), ("pwritev per run", vectored), ("mmap", mapped)];

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (megabytes, written, times) =
        (number("--megabytes", 16), number("--blocks", 256), number("--runs", 1));
    let total = megabytes * (1 << 20) / BLOCK;
    let file = tempfile::tempfile_in(std::env::var_os("TMPDIR").unwrap_or_else(|| ".".into()))?;
    let chunk = vec![1; 1 << 20];
    for at in 0..megabytes {
        file.write_all_at(&chunk, at << 20)?;
    }
    file.sync_all()?;
    println!("{written} blocks in a file of {megabytes} MB, MB/s with fdatasync, best of {times}");
    println!("{:<24} {:<22} {:>8} {:>8}", "", "", "warm", "cold");
    for run in [1, 16] {
        let starts = spread(total / run, written / run).into_iter().map(|start| start * run).collect();
        let pattern =
            Pattern { name: if run == 1 { "scattered blocks" } else { "runs of 16 blocks" }, starts, run };
        for (name, method) in METHODS {
            let warm = best(times, || measure(&file, &pattern, method, false))?;
            let cold = best(times, || measure(&file, &pattern, method, true))?;
            println!("{:<24} {name:<22} {warm:>8.0} {cold:>8.0}", pattern.name);
        }
    }
    Ok(())
}

/// `count` pseudo-random numbers below `total`, in ascending order.
fn spread(total: u64, count: u64) -> Vec<u64> {
    // The high bits of a multiplicative hash (Knuth), which visits every slot once.
    let mut chosen: Vec<u64> = (0..total)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20, n))
        .collect::<Vec<_>>()
        .into_iter()
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_values()
        .take(count as usize)
        .collect();
    chosen.sort_unstable();
    chosen
}

/// Measures one method once, in MB/s.
fn measure(file: &File, pattern: &Pattern, method: Method, cold: bool) -> io::Result<f64> {
    file.sync_all()?;
    if cold {
        fadvise(file, 0, None, Advice::DontNeed)?;
    } else {
        let mut byte = [0; 1 << 16];
        let mut at = 0;
        while file.read_at(&mut byte, at)? > 0 {
            at += byte.len() as u64;
        }
    }
    let bytes = vec![7; (pattern.run * BLOCK) as usize];
    let started = Instant::now();
    method(file, pattern, &bytes)?;
    file.sync_data()?;
    let written = pattern.starts.len() as u64 * pattern.run * BLOCK;
    Ok(written as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn best(times: u64, mut measure: impl FnMut() -> io::Result<f64>) -> io::Result<f64> {
    let mut best = 0.0_f64;
    for _ in 0..times {
        best = best.max(measure()?);
    }
    Ok(best)
}

fn blocks(file: &File, pattern: &Pattern, bytes: &[u8]) -> io::Result<()> {
    let block_of = |start: &u64| (*start..start + pattern.run).collect::<Vec<_>>();
    pattern
        .starts
        .iter()
        .flat_map(block_of)
        .try_for_each(|block| file.write_all_at(&bytes[..BLOCK as usize], block * BLOCK))
}

fn runs(file: &File, pattern: &Pattern, bytes: &[u8]) -> io::Result<()> {
    pattern.starts.iter().try_for_each(|start| file.write_all_at(bytes, start * BLOCK))
}

fn vectored(file: &File, pattern: &Pattern, bytes: &[u8]) -> io::Result<()> {
    for start in &pattern.starts {
        let parts: Vec<IoSlice<'_>> = bytes.chunks(BLOCK as usize).map(IoSlice::new).collect();
        let written = rustix::io::pwritev(file, &parts, start * BLOCK)?;
        assert_eq!(written, bytes.len(), "a short write");
    }
    Ok(())
}

fn mapped(file: &File, pattern: &Pattern, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the file has no name, so no other process can change or truncate it.
    let mut map = unsafe { MmapMut::map_mut(file)? };
    for start in &pattern.starts {
        let at = (start * BLOCK) as usize;
        map[at..at + bytes.len()].copy_from_slice(bytes);
    }
    map.flush()
}
