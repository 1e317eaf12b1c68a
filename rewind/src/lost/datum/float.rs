//! `real` and `double precision` as text: the fewest digits that are read as the same number, and of these the nearest ones
//! (`d2s.c`, `f2s.c`, `float.c`).
//!
//! Text that lies exactly between two numbers is not taken for either of them, though readers that round halves to even would
//! read it right: 1e23 is printed as `9.999999999999999e+22`. This is the server's form from version 12 on. Up to 11 it
//! prints at most 15 digits, which may be another number.

/// A finite number above zero: `mantissa * 2^exponent`.
#[derive(Clone, Copy)]
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// The next smaller number is half as far away as the next greater one.
    is_lowest_of_binade: bool,
}

pub(super) fn float8(value: f64) -> String {
    let (bits, magnitude) = (value.to_bits(), value.abs());
    let binary = Binary::new(bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32, 52);
    special(value).unwrap_or_else(|| {
        let digits = shortest(
            (binary, 17),
            format!("{magnitude:e}"),
            &|decimals| format!("{magnitude:.decimals$e}"),
            &|text| text.parse() == Ok(magnitude),
        );
        layout(value < 0.0, &digits, 15)
    })
}

pub(super) fn float4(value: f32) -> String {
    let (bits, magnitude) = (value.to_bits(), value.abs());
    let binary = Binary::new(u64::from(bits & ((1 << 23) - 1)), (bits >> 23 & 0xff) as i32, 23);
    special(value.into()).unwrap_or_else(|| {
        let digits = shortest(
            (binary, 9),
            format!("{magnitude:e}"),
            &|decimals| format!("{magnitude:.decimals$e}"),
            &|text| text.parse() == Ok(magnitude),
        );
        layout(value < 0.0, &digits, 6)
    })
}

impl Binary {
    /// From the parts of an IEEE 754 number whose fraction has this many bits.
    fn new(fraction: u64, exponent: i32, fraction_bits: i32) -> Binary {
        let bias = if fraction_bits == 52 { 1023 } else { 127 };
        Binary {
            mantissa: if exponent == 0 { fraction } else { fraction | 1 << fraction_bits },
            exponent: exponent.max(1) - bias - fraction_bits,
            is_lowest_of_binade: fraction == 0 && exponent > 1,
        }
    }

    /// Whether a text lies exactly in the middle between this number and one beside it.
    fn is_limit(self, text: &str) -> bool {
        let (digits, exponent) = decimal(text);
        let Ok(number) = digits.parse() else { return false };
        let tens = exponent + 1 - digits.len() as i32;
        let Binary { mantissa, exponent, is_lowest_of_binade } = self;
        let upper = (2 * mantissa + 1, exponent - 1);
        let lower = if is_lowest_of_binade {
            (4 * mantissa - 1, exponent - 2)
        } else {
            (2 * mantissa - 1, exponent - 1)
        };
        [upper, lower].into_iter().any(|limit| is_equal((number, tens), limit))
    }
}

/// Whether `number * 10^tens` is `odd * 2^twos`.
fn is_equal((number, tens): (u64, i32), (odd, twos): (u64, i32)) -> bool {
    if number == 0 || number.trailing_zeros() as i32 + tens != twos {
        return false;
    }
    let times_fives = |number: u64, fives: i32| {
        5u128.checked_pow(u32::try_from(fives).unwrap_or(0))?.checked_mul(number.into())
    };
    // Products that overflow are greater than the other side can be.
    match (times_fives(number >> number.trailing_zeros(), tens), times_fives(odd, -tens)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

/// The text in exponential notation that the server takes, given one with the fewest digits.
fn shortest(
    (binary, most_digits): (Binary, usize),
    found: String,
    rounded: &dyn Fn(usize) -> String,
    is_same: &dyn Fn(&str) -> bool,
) -> String {
    let digits = decimal(&found).0.len();
    // Rounding to as many digits finds the nearest text, and the even one of two that are equally near. It is not the number
    // itself if numbers below are closer together than those above.
    let mut candidates =
        [rounded(digits.saturating_sub(1)), found].into_iter().chain((digits..most_digits).map(rounded));
    let is_right = |text: &String| is_same(text) && !binary.is_limit(text);
    candidates.find(is_right).unwrap_or_else(|| rounded(most_digits - 1))
}

/// The digits of a number like `1.25e-7`, and its exponent.
fn decimal(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or_default())
}

/// Without exponent as long as the point stands near the digits, as C's `%g` has it.
fn layout(is_negative: bool, text: &str, exponential_from: i32) -> String {
    let (digits, exponent) = decimal(text);
    let sign = if is_negative { "-" } else { "" };
    let (before, after) = match usize::try_from(exponent) {
        Ok(exponent) => digits.split_at_checked(exponent + 1).unwrap_or((digits.as_str(), "")),
        Err(_) => ("0", digits.as_str()),
    };
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    if exponent < -4 || exponent >= exponential_from {
        let (first, rest) = digits.split_at_checked(1).unwrap_or((digits.as_str(), ""));
        let point = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{point}{rest}e{exponent:+03}");
    }
    if exponent < 0 {
        return format!("{sign}{before}.{}{after}", zeros(-exponent - 1));
    }
    let point = if after.is_empty() { "" } else { "." };
    format!("{sign}{before}{}{point}{after}", zeros(exponent + 1 - digits.len() as i32))
}

fn special(value: f64) -> Option<String> {
    let name = match value {
        _ if value.is_nan() => "NaN",
        _ if value == 0.0 => ["0", "-0"][usize::from(value.is_sign_negative())],
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn double_precision_has_an_exponent_below_one_ten_thousandth_and_from_fifteen_zeros_on() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (-1.25e100, "-1.25e+100"),
            (123456789012345.0, "123456789012345"),
            (1234567890123456.0, "1.234567890123456e+15"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.00012, "0.00012"),
            (0.00001, "1e-05"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
            (-f64::NAN, "NaN"),
        ] {
            assert_eq!(float8(value), text);
        }
    }

    #[test]
    fn real_has_an_exponent_from_six_zeros_on() {
        for (value, text) in [
            (0.1f32, "0.1"),
            (-0.0, "-0"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (123_456.7, "123456.7"),
            (1_234_567.0, "1.234567e+06"),
            (0.00001, "1e-05"),
            (16_777_216.0, "1.6777216e+07"),
            (f32::MAX, "3.4028235e+38"),
            (1e-45, "1e-45"),
            (f32::NAN, "NaN"),
        ] {
            assert_eq!(float4(value), text);
        }
    }

    /// Known from the server.
    #[test]
    fn text_between_two_numbers_is_neither() {
        assert_eq!(float8(1e23), "9.999999999999999e+22");
        assert_eq!(float8(9e15), "9e+15");
    }

    #[test]
    fn of_two_texts_that_are_equally_near_the_even_one_is_taken() {
        let number = 2f64.powi(50);
        assert_eq!(float8(number + 0.25), "1.1258999068426242e+15");
        assert_eq!(float8(number + 0.75), "1.1258999068426248e+15");
    }

    #[test]
    fn what_is_printed_is_read_as_the_same_number() {
        let mut bits = 0x0123_4567_89ab_cdef_u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (double, single) = (f64::from_bits(bits), f32::from_bits((bits >> 32) as u32));
            if double.is_finite() {
                assert_eq!(float8(double).parse(), Ok(double));
            }
            if single.is_finite() {
                assert_eq!(float4(single).parse(), Ok(single));
            }
        }
    }
}
