//! Manual pages, and the examples in `--help`.

mod pages;

use std::io;
use std::path::Path;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use pages::{MESSAGES, PAGES, Page, Row, USUAL_ENVIRONMENT, USUAL_EXIT_STATUS, USUAL_FILES};

/// Where the documents are, for `--help` and SEE ALSO.
const DOCUMENTS: &str = "/usr/share/doc/kbrecover/docs";

/// Where an error message is explained.
pub(crate) fn page_of_messages() -> String {
    // Without the Debian package they are where the program was built.
    let place = if Path::new(DOCUMENTS).exists() { DOCUMENTS } else { "kbrecover's documentation (docs)" };
    format!("{MESSAGES} in {place} explains this message.")
}

fn page(command: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.command == command)
}

fn exit_status(page: &Page) -> &'static [Row] {
    if page.exit_status.is_empty() { USUAL_EXIT_STATUS } else { page.exit_status }
}

/// The definition of the command line, with exit statuses and examples at the end of each command's help.
pub(crate) fn with_examples(command: clap::Command) -> clap::Command {
    extend(command, "")
}

fn extend(command: clap::Command, parent: &str) -> clap::Command {
    let name = format!("{parent}{}", command.get_name());
    let command = command.mut_subcommands(|command| extend(command, &format!("{name} ")));
    let Some(page) = page(&name) else { return command };
    let mut help = command.get_after_help().map_or_else(String::new, |text| format!("{text}\n\n"));
    if !page.exit_status.is_empty() {
        help += "Exit status:\n";
        page.exit_status.iter().for_each(|(status, text)| help += &format!("{status:>3}  {text}\n"));
        help += "\n";
    }
    help += "Examples:\n";
    page.examples
        .iter()
        .for_each(|(what, line)| help += &format!("  # {what}\n  {}\n", broken(line, "      ")));
    help += &format!("\n{MESSAGES} in the documentation ({DOCUMENTS}) explains every error message.");
    command.after_help(help)
}

/// The manual page of a command, whose definition has no examples.
pub(crate) fn render(command: &clap::Command, name: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let mut roff = Roff::default();
    if let Some(more) = command.get_after_help() {
        for line in more.to_string().lines() {
            if line.is_empty() {
                roff.control("PP", []);
            } else {
                roff.text([roman(line)]);
            }
        }
    }
    roff.to_writer(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(page) = page(name) {
        sections(page).to_writer(&mut text)?;
    }
    man.render_version_section(&mut text)?;
    Ok(text)
}

/// Writes the pages of a command and of all its commands to a directory.
pub(crate) fn render_all(command: clap::Command, directory: &Path) -> io::Result<()> {
    let mut command = command;
    command.build();
    write_pages(&command, "", directory)
}

fn write_pages(command: &clap::Command, parent: &str, directory: &Path) -> io::Result<()> {
    let name = format!("{parent}{}", command.get_name());
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(command, &format!("{name} "), directory)?;
    }
    let file = format!("{}.1", name.replace(' ', "-"));
    std::fs::write(directory.join(file), render(command, &name)?)
}

/// What follows the options.
fn sections(page: &Page) -> Roff {
    let mut roff = Roff::default();
    rows(&mut roff, "EXIT STATUS", exit_status(page));
    roff.control("SH", ["EXAMPLES"]);
    for (what, line) in page.examples {
        roff.control("PP", []).text([roman(format!("{what}:"))]);
        roff.control("PP", []).control("RS", ["4"]).control("nf", []);
        for part in broken(line, "    ").lines() {
            roff.text([roman(part)]);
        }
        roff.control("fi", []).control("RE", []);
    }
    let environment = [&page.environment.concat()[..], USUAL_ENVIRONMENT].concat();
    rows(&mut roff, "ENVIRONMENT", &environment);
    rows(&mut roff, "FILES", &[page.files, USUAL_FILES].concat());
    roff.control("SH", ["SEE ALSO"]);
    let pages: Vec<_> = page.see_also.iter().map(|name| format!("{name}(1)")).collect();
    roff.text([roman(pages.join(", "))]).control("PP", []);
    roff.text([roman(format!("In {DOCUMENTS}:"))]);
    for document in page.documents.iter().chain([&MESSAGES]) {
        roff.control("br", []).text([italic(*document)]);
    }
    roff
}

/// The width of examples, which are not to be broken by whoever shows them: what is broken anywhere cannot be copied.
const WIDTH: usize = 66;

/// A command line on as many lines as it takes, each of the later ones behind an indent.
fn broken(line: &str, indent: &str) -> String {
    let (mut text, mut column, mut is_quoted) = (String::new(), 0, false);
    for word in line.split(' ') {
        let length = word.chars().count();
        match column {
            0 => {}
            _ if is_quoted || column + 1 + length <= WIDTH => {
                text.push(' ');
                column += 1;
            }
            _ => {
                text += &format!(" \\\n{indent}");
                column = indent.len();
            }
        }
        text += word;
        column += length;
        is_quoted ^= word.matches('\'').count() % 2 == 1;
    }
    text
}

fn rows(roff: &mut Roff, title: &str, rows: &[Row]) {
    roff.control("SH", [title]);
    for (name, text) in rows {
        roff.control("TP", []).text([bold(*name)]).text([roman(*text)]);
    }
}

/// The command lines of all examples.
#[cfg(test)]
pub(crate) fn example_lines() -> Vec<&'static str> {
    PAGES.iter().flat_map(|page| page.examples).map(|(_, line)| *line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_two_examples_or_more_of_its_own_command() {
        for page in PAGES {
            assert!(page.examples.len() >= 2, "{}", page.command);
            let first = page.examples[0].1;
            assert!(first.starts_with("kbrecover") && !page.see_also.is_empty(), "{}: {first}", page.command);
        }
    }

    #[test]
    fn long_examples_are_broken_where_a_shell_goes_on() {
        assert_eq!(broken("kbrecover help rewind", "  "), "kbrecover help rewind");
        let long = "kbrecover rewind -D /var/lib/postgresql/15/main --source-server 'host=a user=b' -n";
        let expected =
            "kbrecover rewind -D /var/lib/postgresql/15/main --source-server \\\n  'host=a user=b' -n";
        assert_eq!(broken(long, "  "), expected);
        for line in example_lines() {
            assert_eq!(broken(line, "").replace(" \\\n", " "), line);
            assert!(broken(line, "    ").lines().all(|part| part.len() <= 92), "{line}");
        }
    }

    #[test]
    fn the_documents_that_are_named_exist() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for document in PAGES.iter().flat_map(|page| page.documents).chain([&MESSAGES]) {
            assert!(docs.join(document).is_file(), "docs/{document}");
        }
    }
}
