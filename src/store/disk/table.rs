//! A compact table of numbers: each column takes as many bytes as the range of its numbers needs, and none if all of them are
//! equal. Any cell is found without decoding others.

/// A table with `N` columns.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    /// The minimum of each column.
    bases: [u64; N],
    /// Bytes per cell of each column.
    widths: [u8; N],
    rows: u32,
    /// The cells row by row, each as its difference to the base in little-endian. Padded at the end, so that [`READ_BYTES`] can
    /// be read from every cell on.
    cells: Box<[u8]>,
}

/// Bytes that are read for a cell; those of later cells are masked.
const READ_BYTES: usize = 8;

impl<const N: usize> Table<N> {
    pub(super) fn of(rows: &[[u64; N]]) -> Self {
        let (mut bases, mut most) = rows.first().map_or(([0; N], [0; N]), |first| (*first, *first));
        for row in rows {
            for ((number, base), most) in row.iter().zip(&mut bases).zip(&mut most) {
                *base = (*base).min(*number);
                *most = (*most).max(*number);
            }
        }
        let widths = std::array::from_fn(|column| width(number(&most, column) - number(&bases, column)));
        let stride = stride(&widths);
        let bytes = if stride == 0 { 0 } else { rows.len() * stride + READ_BYTES - 1 };
        let mut cells = Vec::with_capacity(bytes);
        for row in rows {
            for ((number, base), width) in row.iter().zip(&bases).zip(&widths) {
                let cell = (number - base).to_le_bytes();
                cells.extend_from_slice(cell.get(..usize::from(*width)).unwrap_or(&cell));
            }
        }
        cells.resize(bytes, 0);
        Self {
            bases,
            widths,
            rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
            cells: cells.into_boxed_slice(),
        }
    }

    /// Memory of the cells in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn len(&self) -> usize {
        self.rows as usize
    }

    /// The number in an existing row and column.
    pub(super) fn get(&self, row: usize, column: usize) -> u64 {
        let before = stride(self.widths.get(..column).unwrap_or_default());
        let at = row * stride(&self.widths) + before;
        let width = self.widths.get(column).copied().unwrap_or_default();
        number(&self.bases, column) + self.cell(at, width)
    }

    /// An existing row.
    pub(super) fn row(&self, row: usize) -> [u64; N] {
        let mut at = row * stride(&self.widths);
        std::array::from_fn(|column| {
            let width = self.widths.get(column).copied().unwrap_or_default();
            let cell = self.cell(at, width);
            at += usize::from(width);
            number(&self.bases, column) + cell
        })
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = [u64; N]> {
        (0..self.len()).map(|row| self.row(row))
    }

    /// Bounds of the numbers in a column: the minimum, and an upper bound from the width of the column.
    pub(super) fn range(&self, column: usize) -> (u64, u64) {
        let base = number(&self.bases, column);
        let width = self.widths.get(column).copied().unwrap_or_default();
        (base, base.saturating_add(mask(width)))
    }

    fn cell(&self, at: usize, width: u8) -> u64 {
        let bytes = self.cells.get(at..).and_then(<[u8]>::first_chunk::<READ_BYTES>);
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes) & mask(width))
    }
}

fn number(numbers: &[u64], index: usize) -> u64 {
    numbers.get(index).copied().unwrap_or_default()
}

fn stride(widths: &[u8]) -> usize {
    widths.iter().map(|width| usize::from(*width)).sum()
}

/// The greatest number of `width` bytes.
fn mask(width: u8) -> u64 {
    u64::MAX.checked_shr(64 - 8 * u32::from(width)).unwrap_or(0)
}

/// Number of bytes for numbers up to `most`.
fn width(most: u64) -> u8 {
    (64 - most.leading_zeros()).div_ceil(8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_range_are_restored() {
        for shift in 0..64 {
            let most = u64::MAX >> shift;
            let rows = [[7, most, 0], [7, most / 3, u64::MAX], [7, 0, 1], [7, most - 1, 9]];
            let table = Table::of(&rows);
            for (index, row) in rows.iter().enumerate() {
                assert_eq!(table.row(index), *row);
                assert_eq!([table.get(index, 0), table.get(index, 1), table.get(index, 2)], *row);
            }
            let (least, largest) = table.range(1);
            assert!(least == 0 && largest >= most);
        }
    }

    #[test]
    fn a_column_takes_the_bytes_of_its_range() {
        let rows: Vec<_> = (0..64).map(|row| [5_000_000_000 + row, 1, 1 << 40 | row << 9]).collect();
        let table = Table::of(&rows);
        assert_eq!((table.widths, table.cells.len()), ([1, 0, 2], 3 * 64 + 7));
        assert_eq!(Table::of(&[[3, 4]]).cells.len(), 0);
        assert_eq!((Table::<2>::of(&[]).len(), Table::of(&[[1]]).range(0)), (0, (1, 1)));
    }
}
