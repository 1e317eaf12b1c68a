//! `require_auth`: the authentication methods that the client accepts.

use std::collections::BTreeSet;

use super::error::ConninfoError;

/// An authentication method.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum AuthMethod {
    /// A cleartext password.
    Password,
    /// A password hashed with MD5.
    Md5,
    Gss,
    Sspi,
    ScramSha256,
    Oauth,
}

const METHODS: [(&str, AuthMethod); 6] = [
    ("password", AuthMethod::Password),
    ("md5", AuthMethod::Md5),
    ("gss", AuthMethod::Gss),
    ("sspi", AuthMethod::Sspi),
    ("scram-sha-256", AuthMethod::ScramSha256),
    ("oauth", AuthMethod::Oauth),
];

/// The value of `require_auth`. Without it, every method is accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AuthRequirement {
    /// The text of the value.
    pub(crate) text: String,
    allowed: BTreeSet<AuthMethod>,
    /// Whether a server that requests no authentication is rejected.
    pub(crate) exchange_required: bool,
}

impl AuthRequirement {
    /// Whether the server may request this method.
    pub(crate) fn allows(&self, method: AuthMethod) -> bool {
        self.allowed.contains(&method)
    }

    /// Parses a list of methods, or of methods each preceded by `!`. `none` stands for no authentication request.
    pub(super) fn parse(text: &str) -> Result<AuthRequirement, ConninfoError> {
        let negative = text.starts_with('!');
        let mut requirement = AuthRequirement {
            text: text.to_owned(),
            allowed: if negative { METHODS.map(|(_, method)| method).into() } else { BTreeSet::new() },
            exchange_required: !negative,
        };
        for entry in text.split(',') {
            let method = || entry.to_owned();
            let name = match (entry.strip_prefix('!'), negative) {
                (Some(name), true) => name,
                (None, false) => entry,
                (Some(_), false) => return Err(ConninfoError::NegativeAuthMethod { method: method() }),
                (None, true) => return Err(ConninfoError::PositiveAuthMethod { method: method() }),
            };
            let changed = match METHODS.iter().find(|(known, _)| *known == name) {
                Some((_, method)) if negative => requirement.allowed.remove(method),
                Some((_, method)) => requirement.allowed.insert(*method),
                None if name == "none" => {
                    std::mem::replace(&mut requirement.exchange_required, negative) != negative
                }
                None => {
                    return Err(ConninfoError::Word { keyword: "require_auth", value: name.to_owned() });
                }
            };
            if !changed {
                return Err(ConninfoError::RepeatedAuthMethod { method: method() });
            }
        }
        Ok(requirement)
    }
}
