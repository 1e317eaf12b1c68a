//! The two notations of connection strings: `keyword=value ...` and `postgresql://...`.

use super::error::ConninfoError;
use super::options::{self, Values};

/// The notation of a string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notation {
    Pairs,
    Uri,
}

/// Parses a string in either notation.
pub(super) fn parse(text: &str) -> Result<(Values, Notation), ConninfoError> {
    let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    match uri {
        Some(rest) => Ok((parse_uri(rest)?, Notation::Uri)),
        None => Ok((parse_pairs(text)?, Notation::Pairs)),
    }
}

/// Whether C's `isspace` is true, in the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

/// Parses `keyword = value` pairs. Spaces around `=` are ignored. A value ends at the next space, or is enclosed in single
/// quotes; in both forms a backslash escapes the next character.
fn parse_pairs(text: &str) -> Result<Values, ConninfoError> {
    let mut values = Values::new();
    let mut rest = text.trim_start_matches(is_space);
    let mut after_password = false;
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (keyword, after) = rest.split_at(end);
        // The rest of an unquoted password with a space in it is parsed as a keyword, and must not be shown.
        let shown = |is_safe: bool| if is_safe && !after_password { keyword } else { "..." }.to_owned();
        let Some(after) = after.trim_start_matches(is_space).strip_prefix('=') else {
            // It may be a password itself.
            let is_word = keyword.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            return Err(ConninfoError::MissingEquals { keyword: shown(is_word) });
        };
        // As in libpq, `port= user=x` therefore sets port to `user=x`.
        let (value, after) = parse_value(after.trim_start_matches(is_space))?;
        if !values.set(keyword, value) {
            return Err(ConninfoError::UnknownOption { keyword: shown(true) });
        }
        after_password = options::is_secret(keyword);
        rest = after.trim_start_matches(is_space);
    }
    Ok(values)
}

/// Parses a value; returns it and the rest.
fn parse_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let (body, quoted) = match text.strip_prefix('\'') {
        Some(body) => (body, true),
        None => (text, false),
    };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, body.get(at + 1..).unwrap_or_default())),
            c if !quoted && is_space(c) => return Ok((value, body.get(at..).unwrap_or_default())),
            c => value.push(c),
        }
    }
    if quoted { Err(ConninfoError::UnterminatedQuote) } else { Ok((value, "")) }
}

/// Parses `[user[:password]@][host[:port],...][/dbname][?keyword=value&...]`, all parts percent-encoded.
fn parse_uri(text: &str) -> Result<Values, ConninfoError> {
    let mut values = Values::new();
    let mut rest = text;
    // As in libpq, only a `/` ends the search for `@`, so that `h?user=a@b` has the user `h?user=a`.
    if let Some(at) = text.find(['@', '/']).filter(|at| text[*at..].starts_with('@')) {
        let (credentials, after) = text.split_at(at);
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        store(&mut values, "user", "user name", user)?;
        store(&mut values, "password", "password", password.unwrap_or_default())?;
        rest = after.strip_prefix('@').unwrap_or_default();
    }

    rest = parse_netloc(rest, &mut values)?;
    if let Some(after) = rest.strip_prefix('/') {
        let end = after.find('?').unwrap_or(after.len());
        store(&mut values, "dbname", "database name", &after[..end])?;
        rest = &after[end..];
    }
    if let Some(query) = rest.strip_prefix('?') {
        parse_query(query, &mut values)?;
    }
    Ok(values)
}

/// Parses `host[:port],...`; returns the rest: nothing, `/...` or `?...`.
fn parse_netloc<'a>(text: &'a str, values: &mut Values) -> Result<&'a str, ConninfoError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    let mut rest = text;
    loop {
        let (host, after) = match rest.strip_prefix('[') {
            Some(inner) => parse_ipv6(inner)?,
            None => rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len())),
        };
        hosts.push(host);
        rest = after;
        let mut port = "";
        if let Some(after) = rest.strip_prefix(':') {
            (port, rest) = after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len()));
        }
        ports.push(port);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    store(values, "host", "host", &hosts.join(","))?;
    store(values, "port", "port", &ports.join(","))?;
    Ok(rest)
}

/// Parses an IPv6 address up to the closing bracket; returns it and the rest.
fn parse_ipv6(text: &str) -> Result<(&str, &str), ConninfoError> {
    let (address, after) = text.split_once(']').ok_or(ConninfoError::Uri {
        problem: "end of string reached when looking for matching \"]\" in IPv6 host address in URI",
    })?;
    if address.is_empty() {
        return Err(ConninfoError::Uri { problem: "IPv6 host address may not be empty in URI" });
    }
    if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
        return Err(ConninfoError::Uri {
            problem: "unexpected character behind \"]\" in URI (expected \":\" or \"/\")",
        });
    }
    Ok((address, after))
}

fn parse_query(query: &str, values: &mut Values) -> Result<(), ConninfoError> {
    if query.is_empty() {
        return Ok(());
    }
    // A trailing `&` is allowed; a single `&` is an empty pair, and an error.
    let pairs = query.strip_suffix('&').filter(|pairs| !pairs.is_empty()).unwrap_or(query);
    for pair in pairs.split('&') {
        let Some((keyword, value)) = pair.split_once('=') else {
            return Err(ConninfoError::Uri {
                problem: "missing key/value separator \"=\" in URI query parameter",
            });
        };
        if value.contains('=') {
            return Err(ConninfoError::Uri {
                problem: "extra key/value separator \"=\" in URI query parameter",
            });
        }
        let keyword = decode(keyword, "query")?;
        let value = decode(value, "query")?;
        let (keyword, value) = match (keyword.as_str(), value.as_str()) {
            // For compatibility with JDBC, as in libpq.
            ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
            _ => (keyword, value),
        };
        if !values.set(&keyword, value) {
            return Err(ConninfoError::UnknownParameter { keyword });
        }
    }
    Ok(())
}

/// Sets an option from a part of a URI, unless the part is empty.
fn store(values: &mut Values, keyword: &str, part: &'static str, text: &str) -> Result<(), ConninfoError> {
    let decoded = decode(text, part)?;
    if !decoded.is_empty() && !values.set(keyword, decoded) {
        return Err(ConninfoError::UnknownOption { keyword: keyword.to_owned() });
    }
    Ok(())
}

/// Trims spaces and decodes percent-encoding. `%00` and invalid UTF-8 are errors.
fn decode(text: &str, part: &'static str) -> Result<String, ConninfoError> {
    let text = text.trim_matches(is_space);
    if text.contains(is_space) {
        return Err(ConninfoError::UriSpaces { part });
    }
    let bad = || ConninfoError::PercentEncoding { part };
    let mut bytes = Vec::with_capacity(text.len());
    let mut input = text.bytes();
    while let Some(byte) = input.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || input.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
        match u8::try_from(digit()? * 16 + digit()?) {
            Ok(0) | Err(_) => return Err(ConninfoError::UriNul { part }),
            Ok(byte) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}
