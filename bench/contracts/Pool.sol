// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

interface IToken {
    function balanceOf(address owner) external view returns (uint256);
    function transfer(address to, uint256 value) external returns (bool);
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

/// A swap as heavy as one in a concentrated-liquidity exchange: price and tick in one slot, liquidity by
/// ticks found through bitmaps, fees per unit of liquidity, an oracle, two tokens moved, 512-bit products.
/// For measuring alone: nothing guards against loss by rounding, and liquidity is made from nothing.
contract Pool {
    struct State {
        uint160 sqrtPrice;
        int24 tick;
        uint16 observation;
        uint16 observations;
        uint16 protocolShare;
        bool unlocked;
    }

    struct Tick {
        uint128 gross;
        int128 net;
        uint256 feesOutside0;
        uint256 feesOutside1;
    }

    struct Observation {
        uint32 time;
        int56 ticks;
        uint160 secondsPerLiquidity;
    }

    struct Step {
        uint160 start;
        int24 next;
        bool initialized;
        uint160 target;
        uint256 amountIn;
        uint256 amountOut;
        uint256 fee;
    }

    struct Swap {
        uint256 left;
        uint256 out;
        uint160 sqrtPrice;
        int24 tick;
        uint256 feeGrowth;
        uint128 liquidity;
        uint128 protocolFee;
    }

    IToken public immutable token0;
    IToken public immutable token1;
    uint24 private constant FEE = 3000;
    int24 private constant SPACING = 60;
    uint256 private constant Q96 = 1 << 96;
    uint256 private constant Q128 = 1 << 128;

    State public state;
    uint256 public feeGrowth0;
    uint256 public feeGrowth1;
    uint256 public protocolFees;
    uint128 public liquidity;
    mapping(int24 => Tick) public ticks;
    mapping(int16 => uint256) public bitmap;
    Observation[4] public oracle;

    event Swapped(
        address indexed sender,
        address indexed to,
        int256 amount0,
        int256 amount1,
        uint160 sqrtPrice,
        uint128 liquidity,
        int24 tick
    );

    constructor(IToken first, IToken second) {
        token0 = first;
        token1 = second;
        state = State(uint160(Q96), 0, 0, 4, 6, true);
        liquidity = 1e24;
        feeGrowth0 = 1;
        feeGrowth1 = 1;
        protocolFees = 1;
        for (uint16 i = 0; i < 4; i++) oracle[i] = Observation(1, 1, 1);
        // Liquidity begins and ends a few ticks around the price, so that a swap goes over some of them.
        for (int24 n = -8; n <= 8; n++) {
            if (n == 0) continue;
            int24 tick = n * SPACING;
            ticks[tick] = Tick(1e20, n < 0 ? int128(1e20) : -int128(1e20), 1, 1);
            bitmap[int16((tick / SPACING) >> 8)] |= 1 << uint8(uint24((tick / SPACING) & 0xff));
        }
    }

    /// Sells `amount` of token0 (or token1) for the other.
    function swap(bool zeroForOne, uint256 amount, address to) external returns (uint256) {
        State memory before = state;
        require(before.unlocked, "locked");
        state.unlocked = false;
        Swap memory swapped = Swap(
            amount,
            0,
            before.sqrtPrice,
            before.tick,
            zeroForOne ? feeGrowth0 : feeGrowth1,
            liquidity,
            0
        );
        while (swapped.left != 0) step(swapped, zeroForOne, before.protocolShare);
        if (swapped.tick != before.tick) {
            before.observation = observe(before, swapped.liquidity);
        }
        before.sqrtPrice = swapped.sqrtPrice;
        before.tick = swapped.tick;
        liquidity = swapped.liquidity;
        if (zeroForOne) feeGrowth0 = swapped.feeGrowth;
        else feeGrowth1 = swapped.feeGrowth;
        protocolFees += swapped.protocolFee;
        state = before;
        settle(zeroForOne, amount, swapped.out, to);
        (int256 a0, int256 a1) = (int256(amount), -int256(swapped.out));
        if (!zeroForOne) (a0, a1) = (a1, a0);
        emit Swapped(msg.sender, to, a0, a1, swapped.sqrtPrice, swapped.liquidity, swapped.tick);
        return swapped.out;
    }

    function settle(bool zeroForOne, uint256 amountIn, uint256 amountOut, address to) private {
        (IToken tokenIn, IToken tokenOut) = zeroForOne ? (token0, token1) : (token1, token0);
        require(tokenOut.transfer(to, amountOut), "out");
        uint256 held = tokenIn.balanceOf(address(this));
        require(tokenIn.transferFrom(msg.sender, address(this), amountIn), "in");
        require(tokenIn.balanceOf(address(this)) >= held + amountIn, "paid");
    }

    function step(Swap memory swapped, bool zeroForOne, uint16 protocolShare) private {
        unchecked {
            Step memory one;
            one.start = swapped.sqrtPrice;
            (one.next, one.initialized) = nextTick(swapped.tick, zeroForOne);
            one.target = priceAt(one.next);
            (swapped.sqrtPrice, one.amountIn, one.amountOut, one.fee) =
                walk(one.start, one.target, swapped.liquidity, swapped.left, zeroForOne);
            swapped.left -= one.amountIn + one.fee;
            swapped.out += one.amountOut;
            uint256 share = one.fee / protocolShare;
            swapped.protocolFee += uint128(share);
            swapped.feeGrowth += mulDiv(one.fee - share, Q128, swapped.liquidity);
            if (swapped.sqrtPrice == one.target) {
                if (one.initialized) cross(one.next, swapped, zeroForOne);
                swapped.tick = zeroForOne ? one.next - 1 : one.next;
            } else if (swapped.sqrtPrice != one.start) {
                swapped.tick = tickAt(swapped.sqrtPrice);
            }
        }
    }

    function cross(int24 place, Swap memory swapped, bool zeroForOne) private {
        unchecked {
            Tick storage tick = ticks[place];
            tick.feesOutside0 = (zeroForOne ? swapped.feeGrowth : feeGrowth0) - tick.feesOutside0;
            tick.feesOutside1 = (zeroForOne ? feeGrowth1 : swapped.feeGrowth) - tick.feesOutside1;
            int128 net = zeroForOne ? -tick.net : tick.net;
            swapped.liquidity = uint128(int128(swapped.liquidity) + net);
        }
    }

    function observe(State memory before, uint128 current) private returns (uint16 index) {
        unchecked {
            Observation memory last = oracle[before.observation];
            uint32 delta = uint32(block.timestamp) - last.time;
            index = (before.observation + 1) % before.observations;
            oracle[index] = Observation(
                uint32(block.timestamp),
                last.ticks + int56(before.tick) * int56(uint56(delta)),
                last.secondsPerLiquidity + ((uint160(delta) << 128) / current)
            );
        }
    }

    /// The next tick with liquidity in the same word of the bitmap, or the word's end.
    function nextTick(int24 tick, bool down) private view returns (int24 next, bool found) {
        unchecked {
            int24 place = tick / SPACING;
            if (tick < 0 && tick % SPACING != 0) place--;
            if (!down) place++;
            uint8 bit = uint8(uint24(place & 0xff));
            uint256 word = bitmap[int16(place >> 8)];
            uint256 mask = down ? type(uint256).max >> (255 - bit) : type(uint256).max << bit;
            uint256 masked = word & mask;
            found = masked != 0;
            int24 base = place - int24(uint24(bit));
            if (down) next = (found ? base + int24(uint24(highest(masked))) : base) * SPACING;
            else next = (found ? base + int24(uint24(highest(masked & (~masked + 1)))) : base + 255) * SPACING;
        }
    }

    /// How far the price moves for what is left, what that takes and gives, and the fee on it.
    function walk(uint160 from, uint160 target, uint128 depth, uint256 left, bool down)
        private
        pure
        returns (uint160 to, uint256 amountIn, uint256 amountOut, uint256 fee)
    {
        unchecked {
            uint256 net = mulDiv(left, 1e6 - FEE, 1e6);
            amountIn = down ? amount0(target, from, depth) + 1 : amount1(from, target, depth) + 1;
            to = net >= amountIn ? target : priceAfter(from, depth, net, down);
            bool whole = to == target;
            if (!whole) amountIn = net;
            amountOut = down ? amount1(to, from, depth) : amount0(from, to, depth);
            fee = whole ? mulDiv(amountIn, FEE, 1e6 - FEE) + 1 : left - amountIn;
            if (amountIn + fee > left) fee = left - amountIn;
        }
    }

    function priceAfter(uint160 from, uint128 depth, uint256 amount, bool down)
        private
        pure
        returns (uint160)
    {
        unchecked {
            if (!down) return uint160(from + mulDiv(amount, Q96, depth));
            uint256 numerator = uint256(depth) << 96;
            return uint160(mulDiv(numerator, from, numerator + amount * from) + 1);
        }
    }

    function amount0(uint160 low, uint160 high, uint128 depth) private pure returns (uint256) {
        unchecked {
            return mulDiv(uint256(depth) << 96, high - low, high) / low;
        }
    }

    function amount1(uint160 low, uint160 high, uint128 depth) private pure returns (uint256) {
        unchecked {
            return mulDiv(depth, high - low, Q96);
        }
    }

    /// sqrt(1.0001^tick) in Q96: a product of one factor for each bit of the tick.
    function priceAt(int24 tick) private pure returns (uint160) {
        unchecked {
            uint256 distance = uint256(uint24(tick < 0 ? -tick : tick));
            uint256 ratio = Q128;
            if (distance & 0x1 != 0) ratio = (ratio * 0xfffcb933bd6fad37aa2d162d1a594001) >> 128;
            if (distance & 0x2 != 0) ratio = (ratio * 0xfff97272373d413259a46990580e2139) >> 128;
            if (distance & 0x4 != 0) ratio = (ratio * 0xfff2e50f5f656932ef12357cf3c7fdcb) >> 128;
            if (distance & 0x8 != 0) ratio = (ratio * 0xffe5caca7e10e4e61c3624eaa0941ccf) >> 128;
            if (distance & 0x10 != 0) ratio = (ratio * 0xffcb9843d60f6159c9db58835c926643) >> 128;
            if (distance & 0x20 != 0) ratio = (ratio * 0xff973b41fa98c081472e6896dfb254bf) >> 128;
            if (distance & 0x40 != 0) ratio = (ratio * 0xff2ea16466c96a3843ec78b326b52860) >> 128;
            if (distance & 0x80 != 0) ratio = (ratio * 0xfe5dee046a99a2a811c461f1969c3052) >> 128;
            if (distance & 0x100 != 0) ratio = (ratio * 0xfcbe86c7900a88aedcffc83b479aa3a3) >> 128;
            if (distance & 0x200 != 0) ratio = (ratio * 0xf987a7253ac413176f2b074cf7815e53) >> 128;
            if (distance & 0x400 != 0) ratio = (ratio * 0xf3392b0822b70005940c7a398e4b70f2) >> 128;
            if (distance & 0x800 != 0) ratio = (ratio * 0xe7159475a2c29b7443b29c7fa6e889d8) >> 128;
            if (distance & 0x1000 != 0) ratio = (ratio * 0xd097f3bdfd2022b8845ad8f792aa5825) >> 128;
            if (distance & 0x2000 != 0) ratio = (ratio * 0xa9f746462d870fdf8a65dc1f90e061e4) >> 128;
            if (distance & 0x4000 != 0) ratio = (ratio * 0x70d869a156d2a1b890bb3df62baf32f6) >> 128;
            if (distance & 0x8000 != 0) ratio = (ratio * 0x31be135f97d08fd981231505542fcfa5) >> 128;
            if (distance & 0x10000 != 0) ratio = (ratio * 0x9aa508b5b7a84e1c677de54f3e99bc8) >> 128;
            if (distance & 0x20000 != 0) ratio = (ratio * 0x5d6af8dedb81196699c329225ee604) >> 128;
            if (distance & 0x40000 != 0) ratio = (ratio * 0x2216e584f5fa1ea926041bedfe97) >> 128;
            if (distance & 0x80000 != 0) ratio = (ratio * 0x48a170391f7dc42444e8fa2) >> 128;
            if (tick > 0) ratio = type(uint256).max / ratio;
            return uint160((ratio >> 32) + (ratio % (1 << 32) == 0 ? 0 : 1));
        }
    }

    /// The tick of a price, from its binary logarithm: one squaring for each digit.
    function tickAt(uint160 price) private pure returns (int24) {
        unchecked {
            uint256 exponent = highest(price);
            uint256 mantissa = exponent >= 127
                ? uint256(price) >> (exponent - 127)
                : uint256(price) << (127 - exponent);
            int256 log = (int256(exponent) - 96) << 64;
            for (uint256 digit = 0; digit < 16; digit++) {
                mantissa = (mantissa * mantissa) >> 127;
                uint256 carry = mantissa >> 128;
                log |= int256(carry << (63 - digit));
                mantissa >>= carry;
            }
            int24 tick = int24((log * 255738958999603826347140) >> 128);
            if (priceAt(tick + 1) <= price) return tick + 1;
            return priceAt(tick) <= price ? tick : tick - 1;
        }
    }

    function highest(uint256 x) private pure returns (uint8 bit) {
        unchecked {
            if (x >= 1 << 128) { x >>= 128; bit += 128; }
            if (x >= 1 << 64) { x >>= 64; bit += 64; }
            if (x >= 1 << 32) { x >>= 32; bit += 32; }
            if (x >= 1 << 16) { x >>= 16; bit += 16; }
            if (x >= 1 << 8) { x >>= 8; bit += 8; }
            if (x >= 1 << 4) { x >>= 4; bit += 4; }
            if (x >= 1 << 2) { x >>= 2; bit += 2; }
            if (x >= 1 << 1) bit += 1;
        }
    }

    /// a * b / c with the product in 512 bits.
    function mulDiv(uint256 a, uint256 b, uint256 c) private pure returns (uint256) {
        unchecked {
            uint256 full = mulmod(a, b, type(uint256).max);
            uint256 low = a * b;
            uint256 high = full - low - (full < low ? 1 : 0);
            require(high < c, "overflow");
            if (high == 0) return low / c;
            uint256 remainder = mulmod(a, b, c);
            if (remainder > low) high -= 1;
            low -= remainder;
            uint256 twos = c & (~c + 1);
            c /= twos;
            low /= twos;
            low |= high * ((~twos + 1) / twos + 1);
            // Newton: each round doubles the right bits of the inverse of an odd number.
            uint256 inverse = (3 * c) ^ 2;
            for (uint256 round = 0; round < 6; round++) inverse *= 2 - c * inverse;
            return low * inverse;
        }
    }
}
