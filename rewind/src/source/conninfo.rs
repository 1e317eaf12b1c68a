//! Connection strings, as libpq has them.

/// A parsed connection string; its password never shows in `Debug` or `Display`.
#[derive(Clone, Debug)]
pub struct Conninfo {}
