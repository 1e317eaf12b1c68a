//! `require_auth`: which ways of authentication the client puts up with.

use std::collections::BTreeSet;

use super::error::ConninfoError;

/// A way in which a server lets itself be convinced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum AuthMethod {
    /// A password as it is.
    Password,
    /// One hashed with MD5.
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

/// What the list says. Without one everything is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AuthRequirement {
    /// As it was given.
    pub(crate) text: String,
    allowed: BTreeSet<AuthMethod>,
    /// Whether a server that asks for nothing is refused.
    pub(crate) exchange_required: bool,
}

impl AuthRequirement {
    /// Whether the server may ask for this.
    pub(crate) fn allows(&self, method: AuthMethod) -> bool {
        self.allowed.contains(&method)
    }

    /// Reads a list: methods, or methods with a `!` before each; `none` is for a server that asks for nothing.
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
