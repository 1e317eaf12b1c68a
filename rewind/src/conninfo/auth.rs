//! What a connection string asks of authentication.

use tokio_postgres::config::ChannelBinding;

use super::error::ConninfoError;
use super::options::Values;
use super::require_auth::AuthRequirement;

/// The rules for authentication.
#[derive(Clone, Debug)]
pub(crate) struct AuthRules {
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) methods: Option<AuthRequirement>,
    /// The operating system user that the server behind a Unix-domain socket must run as (`requirepeer`).
    pub(crate) peer: Option<String>,
}

impl AuthRules {
    pub(super) fn of(values: &Values) -> Result<AuthRules, ConninfoError> {
        let methods = values.get("require_auth").map(AuthRequirement::parse).transpose()?;
        values.check_word("channel_binding", &["disable", "prefer", "require"])?;
        // These pass on keys of a client that is itself a libpq (postgres_fdw); there is no use for them here.
        for keyword in ["scram_client_key", "scram_server_key"] {
            if values.get(keyword).is_some() {
                return Err(ConninfoError::Unsupported { keyword });
            }
        }
        Ok(AuthRules {
            channel_binding: match values.get("channel_binding") {
                Some("disable") => ChannelBinding::Disable,
                Some("require") => ChannelBinding::Require,
                _ => ChannelBinding::Prefer,
            },
            methods,
            peer: values.get("requirepeer").map(str::to_owned),
        })
    }
}
