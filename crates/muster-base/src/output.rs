//! What commands print, a line at a time.
//!
//! Invariant: a value of a stranger (a name, a file's name, what a server answers) neither acts on
//! the terminal nor begins another line.

use std::fmt;
use std::io::{self, Write};

use muster_jobs::Printable;

/// Why a line was not printed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read the lines has gone, as `head` does: there is no more to do.
    #[error("nobody reads standard output any more")]
    Closed,
    /// The file or the device takes no more.
    #[error("write to standard output")]
    Failed(#[source] io::Error),
}

/// Prints a line on standard output. [`print_line!`](crate::print_line) formats it.
///
/// # Errors
/// [`OutputError`].
pub fn print(line: fmt::Arguments<'_>) -> Result<(), OutputError> {
    let written = write_line(&mut io::stdout().lock(), line);
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed(error),
    })
}

/// What came of printing, for whoever goes on whether anybody reads it or not.
///
/// # Errors
/// [`OutputError::Failed`].
pub fn even_if_closed(printed: Result<(), OutputError>) -> Result<(), OutputError> {
    match printed {
        Err(OutputError::Closed) => Ok(()),
        printed => printed,
    }
}

/// Prints a line on standard error. [`print_error_line!`](crate::print_error_line) formats it.
///
/// Where that fails, there is nowhere left to say so.
pub fn print_error(line: fmt::Arguments<'_>) {
    let _ = write_line(&mut io::stderr().lock(), line);
}

/// Writes a line at once. Tabs stay: they part the columns of some.
fn write_line(to: &mut impl Write, line: fmt::Arguments<'_>) -> io::Result<()> {
    let line = line.to_string();
    let columns: Vec<String> = line
        .split('\t')
        .map(|column| Printable(column).to_string())
        .collect();
    to.write_all(format!("{}\n", columns.join("\t")).as_bytes())?;
    to.flush()
}

/// Prints a formatted line on standard output, as [`print()`] does.
#[macro_export]
macro_rules! print_line {
    ($($line:tt)*) => {
        $crate::output::print(::std::format_args!($($line)*))
    };
}

/// Prints a formatted line on standard error, as [`print_error()`] does.
#[macro_export]
macro_rules! print_error_line {
    ($($line:tt)*) => {
        $crate::output::print_error(::std::format_args!($($line)*))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_and_its_columns_stay_apart() {
        let mut written = Vec::new();
        write_line(&mut written, format_args!("{}\t{}", "a\nb", "\u{1b}c")).unwrap();
        assert_eq!(written, b"a\\u000ab\t\\u001bc\n");
    }
}
