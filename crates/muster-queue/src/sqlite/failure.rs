//! SQLite's errors, mapped by their codes to the decision that a caller makes.

use rusqlite::ErrorCode;

use crate::error::QueueError;

/// Says whether another process holds the file's lock.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        let temporary = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::OutOfMemory
            )
        );
        let source = error.into();
        if temporary {
            Self::Unavailable { source }
        } else {
            Self::Refused { source }
        }
    }
}
