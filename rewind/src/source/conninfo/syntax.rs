//! The two notations: `keyword=value ...` and `postgresql://...`.

use super::ConninfoError;
use super::options::Values;

/// Reads either notation.
pub(super) fn parse(text: &str) -> Result<Values, ConninfoError> {
    let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    match uri {
        Some(rest) => parse_uri(rest),
        None => parse_pairs(text),
    }
}

/// What C's `isspace` takes for space.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

/// `keyword = value`: space around `=` does not count, a value is bare up to the next space or stands in
/// single quotes, and in both a backslash makes the next character ordinary.
fn parse_pairs(text: &str) -> Result<Values, ConninfoError> {
    let mut values = Values::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (keyword, after) = rest.split_at(end);
        let Some(after) = after.trim_start_matches(is_space).strip_prefix('=') else {
            // What stands here may be the rest of a password with a space in it, or a whole one.
            let is_word = keyword.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let is_safe = is_word && values.get("password").is_none() && values.get("sslpassword").is_none();
            let keyword = if is_safe { keyword } else { "..." };
            return Err(ConninfoError::MissingEquals { keyword: keyword.to_owned() });
        };
        // So the value of `port= user=x` is `user=x`, strange as it looks: libpq reads it this way.
        let (value, after) = parse_value(after.trim_start_matches(is_space))?;
        if !values.set(keyword, value) {
            return Err(ConninfoError::UnknownOption { keyword: keyword.to_owned() });
        }
        rest = after.trim_start_matches(is_space);
    }
    Ok(values)
}

/// Reads a value; returns it and what follows.
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

/// `[user[:password]@][host[:port],...][/dbname][?keyword=value&...]`, everything percent-encoded.
fn parse_uri(text: &str) -> Result<Values, ConninfoError> {
    let mut values = Values::new();
    let mut rest = text;
    // Only a `/` ends the search for the user: a `?` does not, so `h?user=a@b` has the user `h?user=a`.
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

/// Reads `host[:port],...` and returns what follows: nothing, `/...` or `?...`.
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

/// Reads an address up to its `]`.
fn parse_ipv6(text: &str) -> Result<(&str, &str), ConninfoError> {
    let (address, after) = text
        .split_once(']')
        .ok_or(ConninfoError::Uri { problem: "missing \"]\" after an IPv6 host address" })?;
    if address.is_empty() {
        return Err(ConninfoError::Uri { problem: "empty IPv6 host address" });
    }
    if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
        return Err(ConninfoError::Uri { problem: "unexpected character after \"]\"" });
    }
    Ok((address, after))
}

fn parse_query(query: &str, values: &mut Values) -> Result<(), ConninfoError> {
    if query.is_empty() {
        return Ok(());
    }
    // One `&` may end the query; one alone is a pair without anything.
    let pairs = query.strip_suffix('&').filter(|pairs| !pairs.is_empty()).unwrap_or(query);
    for pair in pairs.split('&') {
        let Some((keyword, value)) = pair.split_once('=') else {
            return Err(ConninfoError::Uri { problem: "missing key/value separator \"=\"" });
        };
        if value.contains('=') {
            return Err(ConninfoError::Uri { problem: "extra key/value separator \"=\"" });
        }
        let keyword = decode(keyword, "query")?;
        let value = decode(value, "query")?;
        let (keyword, value) = match (keyword.as_str(), value.as_str()) {
            // What JDBC calls it.
            ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
            _ => (keyword, value),
        };
        if !values.set(&keyword, value) {
            return Err(ConninfoError::UnknownParameter { keyword });
        }
    }
    Ok(())
}

/// Sets an option from a part of a URI; an empty part leaves it open.
fn store(values: &mut Values, keyword: &str, part: &'static str, text: &str) -> Result<(), ConninfoError> {
    let decoded = decode(text, part)?;
    if !decoded.is_empty() && !values.set(keyword, decoded) {
        return Err(ConninfoError::UnknownOption { keyword: keyword.to_owned() });
    }
    Ok(())
}

/// Undoes percent-encoding. `%00` and what does not become UTF-8 are errors.
fn decode(text: &str, part: &'static str) -> Result<String, ConninfoError> {
    let bad = || ConninfoError::PercentEncoding { part };
    let mut bytes = Vec::with_capacity(text.len());
    let mut input = text.bytes();
    while let Some(byte) = input.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || input.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).ok().filter(|byte| *byte != 0).ok_or_else(bad)?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}
