// Where secondary CPUs begin: real mode, at the page that the startup IPI names. Only linked into
// guests that start them.

#define STACK_SIZE 2048
#define MOST_CPUS 512

        .text
        .code16
        .globl ap_trampoline, ap_trampoline_end
ap_trampoline:                          // copied to the page; CS is that page's segment, IP 0
        cli
        lgdtl %cs:(ap_gdt_pointer - ap_trampoline)
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $0x18, $ap_start
ap_gdt_pointer:
        .word 4 * 8 - 1
        .long gdt_base
ap_trampoline_end:

        .code32
ap_start:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl $1, %edi
        lock xaddl %edi, ap_arrivals    // EDI: how many were here before
        movl %edi, %eax
        cmpl $MOST_CPUS, %eax
        jae ap_lost
        imull $STACK_SIZE, %eax
        addl $ap_stacks + STACK_SIZE, %eax
        movl %eax, %esp
        movl %eax, %ebp
        call enter_long_mode
        ljmp $0x08, $ap_long
ap_lost:
        cli
        hlt
        jmp ap_lost

        .code64
ap_long:
        movl %ebp, %esp
        movl %edi, %edi
        call ap_enter
1:      cli
        hlt
        jmp 1b

        .bss
        .balign 16
ap_stacks:
        .skip STACK_SIZE * MOST_CPUS
        .globl ap_arrivals
ap_arrivals:
        .long 0

        .section .note.GNU-stack, "", @progbits
