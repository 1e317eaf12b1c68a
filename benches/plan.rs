//! Speed of planning, by the number of files and of changed blocks.
//!
//!     cargo bench -p kbrecover-rewind --bench plan

#![allow(missing_docs, reason = "criterion_group makes public functions")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kbrecover_rewind::testing::benching::MadeUp;

fn plans(c: &mut Criterion) {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let mut group = c.benchmark_group("plan");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for files in if is_measured { vec![1_000, 100_000] } else { vec![100] } {
        for blocks_per_file in [1, 10] {
            let made = MadeUp::new(files, files * blocks_per_file);
            group.throughput(Throughput::Elements(u64::from(files)));
            let blocks = format!("{} changed blocks", files * blocks_per_file);
            group.bench_function(BenchmarkId::new(blocks, files), |b| b.iter(|| made.plan()));
        }
    }
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
