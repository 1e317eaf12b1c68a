//! Doors for benchmarks and fuzzing. Not part of the interface.

#[doc(hidden)]
pub mod benching;
#[doc(hidden)]
pub mod fuzzing;
