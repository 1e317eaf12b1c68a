//! Entry points for benchmarks and fuzzing. Not part of the library's interface.

#[doc(hidden)]
pub mod benching;
#[doc(hidden)]
pub mod fuzzing;
