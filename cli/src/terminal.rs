//! The terminal that this program may run in.

use std::io::{self, IsTerminal};

use mezz_proto::mezz::v1::WindowSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Its size, if there is one: of standard output, or else of standard input.
pub fn window() -> Option<WindowSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    // Some terminals do not know theirs.
    let known = size.ws_row > 0 && size.ws_col > 0;
    known.then(|| WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

/// While it lives, each key goes through as it is typed. Dropping it makes the
/// terminal as it was.
#[derive(Debug)]
pub struct Raw(Termios);

/// Makes standard input raw, if it is a terminal.
///
/// # Errors
/// When the terminal refuses.
pub fn raw() -> io::Result<Option<Raw>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(&stdin)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    Ok(Some(Raw(before)))
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing else can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
