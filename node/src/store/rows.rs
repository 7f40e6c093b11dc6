//! Statements over many rows at once. A prepared statement with 256 rows costs little more than one
//! with a single row, and only five sizes of each are ever prepared.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, SqliteConnection};

use super::StoreError;

/// A statement that takes a list of rows: `before (?, …), (?, …) after`.
#[derive(Debug)]
pub(super) struct ManyRows {
    columns: usize,
    texts: [Arc<str>; SIZES.len()],
}

/// Rows of the prepared sizes, largest first. 256 rows of 16 columns stay far below SQLite's 32,766
/// variables (https://sqlite.org/limits.html).
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

impl ManyRows {
    pub(super) fn new(before: &str, columns: usize, after: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        let texts = SIZES.map(|rows| {
            let mut text = String::from(before);
            for place in 0..rows {
                let comma = if place == 0 { " " } else { "," };
                write!(text, "{comma}{row}").expect("a string takes all text");
            }
            write!(text, " {after}").expect("a string takes all text");
            Arc::from(text)
        });
        Self { columns, texts }
    }

    #[cfg(test)]
    pub(super) fn largest(&self) -> &str {
        &self.texts[0]
    }

    /// Runs the statement over all `rows`, in their order.
    pub(super) async fn run<T>(
        &self,
        conn: &mut SqliteConnection,
        rows: &[T],
        mut bind: impl FnMut(&T, &mut Row<'_>),
    ) -> Result<(), StoreError> {
        let mut rest = rows;
        for (size, text) in SIZES.iter().zip(&self.texts) {
            while rest.len() >= *size {
                let (now, later) = rest.split_at(*size);
                rest = later;
                let mut arguments = SqliteArguments::default();
                arguments.reserve(size * self.columns, 0);
                for row in now {
                    bind(row, &mut Row { arguments: &mut arguments });
                }
                debug_assert_eq!(arguments.len(), size * self.columns, "{text}");
                sqlx::query_with(AssertSqlSafe(text.clone()), arguments).execute(&mut *conn).await?;
            }
        }
        Ok(())
    }
}

/// The values of one row, in the order of its columns.
pub(super) struct Row<'a> {
    arguments: &'a mut SqliteArguments,
}

impl Row<'_> {
    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.add(value)
    }

    pub(super) fn maybe_int(&mut self, value: Option<i64>) -> &mut Self {
        self.add(value)
    }

    pub(super) fn blob(&mut self, value: &[u8]) -> &mut Self {
        self.add(value)
    }

    pub(super) fn maybe_blob(&mut self, value: Option<&[u8]>) -> &mut Self {
        self.add(value)
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.add(value)
    }

    pub(super) fn maybe_text(&mut self, value: Option<&str>) -> &mut Self {
        self.add(value)
    }

    fn add<'t, T>(&mut self, value: T) -> &mut Self
    where
        T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.arguments.add(value).expect("integers, bytes and text have a column form");
        self
    }
}
