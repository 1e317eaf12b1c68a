//! The command that runs a shell command on another host.

use std::process::Command;

use crate::flow::StepError;

/// How commands are run on other hosts.
#[derive(Clone, Copy)]
pub(crate) struct Remote<'a> {
    /// A shell command that runs `%c` on host `%h`, instead of ssh.
    pub(crate) template: Option<&'a str>,
    /// The options of ssh.
    pub(crate) ssh_options: &'a str,
}

impl Remote<'_> {
    /// The command that runs `script` on a host.
    ///
    /// # Errors
    /// The name of the host is not valid: it may become part of a shell command.
    pub(crate) fn command(self, host: &str, script: &str) -> Result<Command, StepError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if host.is_empty() || host.starts_with('-') || !host.bytes().all(fits) {
            return Err(StepError::new(format!("\"{host}\" is not a valid host name")));
        }
        if let Some(template) = self.template {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(template.replace("%h", host).replace("%c", &quoted(script)));
            return Ok(command);
        }
        let mut command = Command::new("ssh");
        command.args(["-o", "Batchmode=yes"]).args(self.ssh_options.split_whitespace());
        // The first value of an option counts, so the options given take precedence. Without any keepalive, a host that
        // vanishes would hold the command for ever.
        command.args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]).arg(host).arg(script);
        Ok(command)
    }
}

/// The text quoted as one shell word.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn ssh_keepalives_end_a_command_on_a_vanished_host() {
        let remote = Remote { template: None, ssh_options: "-o ServerAliveInterval=60" };
        let words = words(&remote.command("db2", "true").unwrap());
        let place = |option: &str| words.iter().position(|word| word.starts_with(option));
        // ssh uses the first of several values.
        assert!(place("ServerAliveInterval=60") < place("ServerAliveInterval=5"), "{words:?}");
        assert!(place("ServerAliveCountMax=3").is_some(), "{words:?}");
        assert_eq!(words[words.len() - 2..], ["db2", "true"]);
    }

    #[test]
    fn only_valid_host_names_are_put_into_a_command() {
        let remote = Remote { template: Some("run %h %c"), ssh_options: "" };
        for host in ["", "-oProxyCommand=x", "a b", "a;b", "$(x)", "a'b", "h\u{e4}"] {
            assert!(remote.command(host, "true").is_err(), "{host:?}");
        }
        for host in ["db_2.example-a.org", "10.0.0.1", "fe80::1"] {
            let command = remote.command(host, "it's").unwrap();
            assert_eq!(words(&command), ["-c".to_owned(), format!("run {host} 'it'\\''s'")]);
        }
    }
}
