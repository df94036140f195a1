//go:build !purego

#include "textflag.h"

// Both hashes read a block as sixteen big-endian words, make more of them, and
// take four at a time into their state (FIPS 180-4, 6.1 and 6.2). The words that
// are needed next stand in four registers, the oldest first; those made of them
// take the place of the oldest. What an instruction does is in Intel's Software
// Developer's Manual, volume 2: SHA1RNDS4, SHA256RNDS2 and those beside them.

#define AT SI     // here are so many
#define BLOCKS CX
#define END R8    // and then, here, so many
#define ENDING R9
#define CONSTANTS DX
#define FLIP X15  // shuffles the bytes of each word

#define ABEF X1   // A is the highest word
#define CDGH X2
#define V0 X3     // words of SHA-256, of which the first is the lowest
#define V1 X4
#define V2 X5
#define V3 X6
#define T0 X0     // what SHA256RNDS2 takes without naming it
#define T1 X7

#define ABCD X8   // A is the highest word
#define E0 X9     // the highest word
#define E1 X10
#define W0 X11    // words of SHA-1, of which the first is the highest
#define W1 X12
#define W2 X13
#define W3 X14

// ROUNDS256 does four rounds of SHA-256.
#define ROUNDS256(i, v) \
	MOVOU       (i*16)(CONSTANTS), T0 \
	PADDD       v, T0 \
	SHA256RNDS2 T0, ABEF, CDGH \
	PSHUFD      $0x0e, T0, T0 \
	SHA256RNDS2 T0, CDGH, ABEF

// FIRST256 does them with the words of the block itself.
#define FIRST256(i, v) \
	MOVOU  (i*16)(AT), v \
	PSHUFB FLIP, v \
	ROUNDS256(i, v)

// NEXT256 does them with words that it makes of those before.
#define NEXT256(i, v0, v1, v2, v3) \
	SHA256MSG1 v1, v0 \
	MOVO       v3, T1 \
	PALIGNR    $4, v2, T1 \
	PADDD      T1, v0 \
	SHA256MSG2 v3, v0 \
	ROUNDS256(i, v0)

// ROUNDS1 does four rounds of SHA-1 with function f. The E they begin with is
// made of A four rounds before, which is in e; old will be that of the next.
#define ROUNDS1(f, w, e, old) \
	SHA1NEXTE w, e \
	MOVO      ABCD, old \
	SHA1RNDS4 $f, e, ABCD

// FIRST1 does them with the words that FIRST256 has read.
#define FIRST1(v, w, e, old) \
	PSHUFD $0x1b, v, w \
	ROUNDS1(0, w, e, old)

// NEXT1 does them with words that it makes of those before.
#define NEXT1(f, w0, w1, w2, w3, e, old) \
	SHA1MSG1 w1, w0 \
	PXOR     w2, w0 \
	SHA1MSG2 w3, w0 \
	ROUNDS1(f, w0, e, old)

#define START \
	SHRQ  $6, BLOCKS \
	LEAQ  ·constants(SB), CONSTANTS \
	MOVOU ·flip(SB), FLIP \
	MOVOU ·start256+0(SB), ABEF \
	MOVOU ·start256+16(SB), CDGH

// STORE256 leaves A to H at a pointer, in big-endian words.
#define STORE256(to) \
	MOVO       ABEF, T0 \
	PUNPCKHQDQ CDGH, T0 \
	PUNPCKLQDQ CDGH, ABEF \
	PSHUFD     $0xb1, T0, T0 \
	PSHUFD     $0xb1, ABEF, ABEF \
	PSHUFB     FLIP, T0 \
	PSHUFB     FLIP, ABEF \
	MOVOU      T0, 0(to) \
	MOVOU      ABEF, 16(to)

// func sum256(sum *[32]byte, data []byte, end *ending, n int)
TEXT ·sum256(SB), NOSPLIT, $0-48
	MOVQ  data_base+8(FP), AT
	MOVQ  data_len+16(FP), BLOCKS
	MOVQ  end+32(FP), END
	MOVQ  n+40(FP), ENDING
	START
	TESTQ BLOCKS, BLOCKS
	JNZ   block

ending:
	MOVQ END, AT
	MOVQ ENDING, BLOCKS
	XORQ ENDING, ENDING

block:
	MOVO  ABEF, W0 // there is no SHA-1 here
	MOVO  CDGH, W1
	FIRST256(0, V0)
	FIRST256(1, V1)
	FIRST256(2, V2)
	FIRST256(3, V3)
	NEXT256(4, V0, V1, V2, V3)
	NEXT256(5, V1, V2, V3, V0)
	NEXT256(6, V2, V3, V0, V1)
	NEXT256(7, V3, V0, V1, V2)
	NEXT256(8, V0, V1, V2, V3)
	NEXT256(9, V1, V2, V3, V0)
	NEXT256(10, V2, V3, V0, V1)
	NEXT256(11, V3, V0, V1, V2)
	NEXT256(12, V0, V1, V2, V3)
	NEXT256(13, V1, V2, V3, V0)
	NEXT256(14, V2, V3, V0, V1)
	NEXT256(15, V3, V0, V1, V2)
	PADDD W0, ABEF
	PADDD W1, CDGH
	ADDQ  $64, AT
	DECQ  BLOCKS
	JNZ   block
	TESTQ ENDING, ENDING
	JNZ   ending
	MOVQ  sum+0(FP), DI
	STORE256(DI)
	RET

// func sums(sum1 *[20]byte, sum256 *[32]byte, data []byte, end *ending, n int)
TEXT ·sums(SB), NOSPLIT, $64-56
	MOVQ  data_base+16(FP), AT
	MOVQ  data_len+24(FP), BLOCKS
	MOVQ  end+40(FP), END
	MOVQ  n+48(FP), ENDING
	START
	MOVOU ·start1+0(SB), ABCD
	MOVOU ·start1+16(SB), E0
	TESTQ BLOCKS, BLOCKS
	JNZ   block

ending:
	MOVQ END, AT
	MOVQ ENDING, BLOCKS
	XORQ ENDING, ENDING

block:
	MOVOU ABEF, before-64(SP)
	MOVOU CDGH, before-48(SP)
	MOVOU ABCD, before-32(SP)
	MOVOU E0, before-16(SP)
	FIRST256(0, V0)
	PSHUFD    $0x1b, V0, W0
	PADDD     W0, E0 // this E is there
	MOVO      ABCD, E1
	SHA1RNDS4 $0, E0, ABCD
	FIRST256(1, V1)
	FIRST1(V1, W1, E1, E0)
	FIRST256(2, V2)
	FIRST1(V2, W2, E0, E1)
	FIRST256(3, V3)
	FIRST1(V3, W3, E1, E0)
	NEXT256(4, V0, V1, V2, V3)
	NEXT1(0, W0, W1, W2, W3, E0, E1)
	NEXT256(5, V1, V2, V3, V0)
	NEXT1(1, W1, W2, W3, W0, E1, E0)
	NEXT256(6, V2, V3, V0, V1)
	NEXT1(1, W2, W3, W0, W1, E0, E1)
	NEXT256(7, V3, V0, V1, V2)
	NEXT1(1, W3, W0, W1, W2, E1, E0)
	NEXT256(8, V0, V1, V2, V3)
	NEXT1(1, W0, W1, W2, W3, E0, E1)
	NEXT256(9, V1, V2, V3, V0)
	NEXT1(1, W1, W2, W3, W0, E1, E0)
	NEXT256(10, V2, V3, V0, V1)
	NEXT1(2, W2, W3, W0, W1, E0, E1)
	NEXT256(11, V3, V0, V1, V2)
	NEXT1(2, W3, W0, W1, W2, E1, E0)
	NEXT256(12, V0, V1, V2, V3)
	NEXT1(2, W0, W1, W2, W3, E0, E1)
	NEXT256(13, V1, V2, V3, V0)
	NEXT1(2, W1, W2, W3, W0, E1, E0)
	NEXT256(14, V2, V3, V0, V1)
	NEXT1(2, W2, W3, W0, W1, E0, E1)
	NEXT256(15, V3, V0, V1, V2)
	NEXT1(3, W3, W0, W1, W2, E1, E0)
	NEXT1(3, W0, W1, W2, W3, E0, E1)
	NEXT1(3, W1, W2, W3, W0, E1, E0)
	NEXT1(3, W2, W3, W0, W1, E0, E1)
	NEXT1(3, W3, W0, W1, W2, E1, E0)
	MOVOU     before-64(SP), T0
	PADDD     T0, ABEF
	MOVOU     before-48(SP), T0
	PADDD     T0, CDGH
	MOVOU     before-32(SP), T0
	PADDD     T0, ABCD
	MOVOU     before-16(SP), T0
	SHA1NEXTE T0, E0
	ADDQ      $64, AT
	DECQ      BLOCKS
	JNZ       block
	TESTQ     ENDING, ENDING
	JNZ       ending
	MOVQ      sum256+8(FP), DI
	STORE256(DI)
	MOVQ   sum1+0(FP), DI
	PSHUFD $0x1b, ABCD, ABCD
	PSHUFB FLIP, ABCD
	MOVOU  ABCD, 0(DI)
	PSHUFD $0x03, E0, E0
	PSHUFB FLIP, E0
	MOVQ   E0, AX
	MOVL   AX, 16(DI) // and no more than 20 bytes
	RET

// func cpuid(leaf uint32) (a, b, c uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-20
	MOVL leaf+0(FP), AX
	XORL CX, CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	RET
