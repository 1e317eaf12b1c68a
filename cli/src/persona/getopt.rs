//! Parses command lines as the server's programs do, with `getopt_long` of the GNU C library.
//!
//! Scripts written for those programs rely on its rules: `-Dvalue`, `-PD value`, `--opt value`,
//! `--opt=value`, unambiguous abbreviations of long names, options after operands, and `--`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A known option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Its short name.
    pub(crate) short: Option<u8>,
    /// Its long name.
    pub(crate) long: &'static str,
    /// Whether it takes a value.
    pub(crate) takes_value: bool,
}

/// A parsed command line.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Parsed {
    /// The long names of the options given, in order, with their values.
    pub(crate) options: Vec<(&'static str, Option<OsString>)>,
    /// The other arguments.
    pub(crate) operands: Vec<OsString>,
}

/// Parses arguments, without the program's name.
///
/// # Errors
/// The first invalid argument, in the words of the C library.
pub(crate) fn parse(arguments: &[OsString], specs: &[Spec]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            parsed.operands.extend(rest.by_ref().cloned());
        } else if let Some(text) = bytes.strip_prefix(b"--") {
            parsed.options.push(long(text, specs, &mut rest)?);
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            letters(&bytes[1..], specs, &mut rest, &mut parsed)?;
        } else {
            parsed.operands.push(argument.clone());
        }
    }
    Ok(parsed)
}

fn long<'a>(
    text: &[u8],
    specs: &[Spec],
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<(&'static str, Option<OsString>), String> {
    let (name, value) = match text.iter().position(|&byte| byte == b'=') {
        Some(at) => (&text[..at], Some(OsString::from_vec(text[at + 1..].to_vec()))),
        None => (text, None),
    };
    let matching: Vec<_> = specs.iter().filter(|spec| spec.long.as_bytes().starts_with(name)).collect();
    let exact = matching.iter().find(|spec| spec.long.as_bytes() == name);
    let shown = OsStr::from_bytes(text).to_string_lossy();
    let spec = match (exact, &matching[..]) {
        (Some(spec), _) | (None, [spec]) => *spec,
        (None, []) => return Err(format!("unrecognized option '--{shown}'")),
        (None, several) => {
            let names: String = several.iter().map(|spec| format!(" '--{}'", spec.long)).collect();
            return Err(format!("option '--{shown}' is ambiguous; possibilities:{names}"));
        }
    };
    match (spec.takes_value, value) {
        (false, Some(_)) => Err(format!("option '--{}' doesn't allow an argument", spec.long)),
        (true, None) => match rest.next() {
            Some(value) => Ok((spec.long, Some(value.clone()))),
            None => Err(format!("option '--{}' requires an argument", spec.long)),
        },
        (_, value) => Ok((spec.long, value)),
    }
}

/// `-PD value`, `-PDvalue`
fn letters<'a>(
    letters: &[u8],
    specs: &[Spec],
    rest: &mut impl Iterator<Item = &'a OsString>,
    parsed: &mut Parsed,
) -> Result<(), String> {
    for (at, &letter) in letters.iter().enumerate() {
        let shown = char::from(letter);
        let Some(spec) = specs.iter().find(|spec| spec.short == Some(letter)) else {
            return Err(format!("invalid option -- '{shown}'"));
        };
        if !spec.takes_value {
            parsed.options.push((spec.long, None));
            continue;
        }
        let value = match &letters[at + 1..] {
            [] => rest.next().cloned().ok_or_else(|| format!("option requires an argument -- '{shown}'"))?,
            value => OsString::from_vec(value.to_vec()),
        };
        parsed.options.push((spec.long, Some(value)));
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [Spec; 4] = [
        Spec { short: Some(b'D'), long: "target", takes_value: true },
        Spec { short: Some(b'n'), long: "dry-run", takes_value: false },
        Spec { short: None, long: "source-dir", takes_value: true },
        Spec { short: None, long: "source-server", takes_value: true },
    ];

    fn read(line: &str) -> Result<Parsed, String> {
        let arguments: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect();
        parse(&arguments, &SPECS)
    }

    #[test]
    fn every_spelling_is_accepted() {
        let target = ("target", Some(OsString::from("/d")));
        let dry_run = ("dry-run", None);
        for line in ["-nD /d", "-nD/d", "-n --target /d", "-n --tar=/d", "--dry --t /d"] {
            let parsed = read(line).unwrap();
            assert_eq!(parsed.options, [dry_run.clone(), target.clone()], "{line}");
        }
        let parsed = read("a -D -n b - --source-s=x=y -- -n").unwrap();
        let expected = [("target", Some("-n".into())), ("source-server", Some("x=y".into()))];
        assert_eq!(parsed.options, expected);
        assert_eq!(parsed.operands, ["a", "b", "-", "-n"].map(OsString::from));
        assert_eq!(read("").unwrap(), Parsed::default());
    }

    #[test]
    fn errors_have_the_words_of_the_c_library() {
        for (line, error) in [
            ("-nx", "invalid option -- 'x'"),
            ("-nD", "option requires an argument -- 'D'"),
            ("--foo=1", "unrecognized option '--foo=1'"),
            ("--dry-run=1", "option '--dry-run' doesn't allow an argument"),
            ("--target", "option '--target' requires an argument"),
            ("--so x", "option '--so' is ambiguous; possibilities: '--source-dir' '--source-server'"),
        ] {
            assert_eq!(read(line).unwrap_err(), error);
        }
    }
}
