//! Rows and values offline: takes the bytes of a row apart and prints its values as the server would.
//!
//! [`deform`] finds the columns of a row, [`detoast`] makes a value of the chunks that are stored outside of it, [`text`]
//! prints a value. What is printed is what a server prints with these settings, so that it is the same everywhere:
//! `DateStyle` "ISO, MDY", `IntervalStyle` "postgres", `TimeZone` UTC, `extra_float_digits` 1, `bytea_output` "hex",
//! `lc_monetary` "C". No output function looks at settings beyond these.
//!
//! The bytes may be damaged. Then a value is missing or remains bytes; nothing here panics, and what is made of a value is
//! limited by its size.

mod fetch;
mod tuple;

mod encoding;
mod scalar;
mod float;
mod numeric;
mod datetime;
mod interval;
mod network;
mod geometry;
mod jsonb;
mod text_search;
mod xml;
mod built_in;

mod arrays;
mod composite;
mod ranges;
mod print;

pub(crate) use fetch::{Datum, ToastPointer, detoast};
pub(crate) use print::text;
pub(crate) use tuple::{Tuple, deform};
