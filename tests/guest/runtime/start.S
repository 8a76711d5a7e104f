// From PVH's 32-bit entry (Xen, docs/misc/pvh.pandoc) to C++ in long mode, and the way of every
// interrupt to C++.

#define CODE64 0x08
#define DATA 0x10
#define PRESENT_WRITABLE 3
#define LARGE 0x80

        .section .note.pvh, "a", @note
        .long 4, 4, 18                  // name and value in bytes, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long pvh_start

        .text
        .code32
        .globl pvh_start
pvh_start:
        cli
        cld
        movl %ebx, %edi                 // struct hvm_start_info, guest_start's first argument
        movl $boot_stack_top, %esp
        lgdt gdt_pointer
        call enter_long_mode
        ljmp $CODE64, $bsp_long

// Paging and long mode on; the caller's far jump completes it. Changes EAX, ECX, EDX, ESI.
        .globl enter_long_mode
enter_long_mode:
        popl %esi                       // the return address, while the stack is still readable
        movl %cr4, %eax
        orl $0x20, %eax                 // PAE
        movl %eax, %cr4
        movl $pml4, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx          // EFER
        rdmsr
        orl $0x100, %eax                // LME
        wrmsr
        movl %cr0, %eax
        andl $0x9fffffff, %eax          // without CD and NW, which INIT sets
        orl $0x80010001, %eax           // PG, WP, PE
        movl %eax, %cr0
        jmp *%esi

        .code64
bsp_long:
        movl $DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        xorl %eax, %eax
        movl %eax, %fs
        movl %eax, %gs
        movl $boot_stack_top, %esp
        movl %edi, %edi
        call guest_start
1:      cli
        hlt
        jmp 1b

// 64 interrupt entries of 16 bytes each: error code (or 0), vector, then the rest of guest::Frame.
        .balign 16
        .globl interrupt_entries
interrupt_entries:
        .set vector, 0
        .rept 64
        .balign 16
        .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
        pushq $0
        .endif
        pushq $vector
        jmp interrupt_common
        .set vector, vector + 1
        .endr

interrupt_common:
        pushq %rax
        pushq %rcx
        pushq %rdx
        pushq %rbx
        pushq %rbp
        pushq %rsi
        pushq %rdi
        pushq %r8
        pushq %r9
        pushq %r10
        pushq %r11
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        cld
        movq %rsp, %rdi
        call handle_interrupt
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %r11
        popq %r10
        popq %r9
        popq %r8
        popq %rdi
        popq %rsi
        popq %rbp
        popq %rbx
        popq %rdx
        popq %rcx
        popq %rax
        addq $16, %rsp
        iretq

        .data
        .balign 8
        .globl gdt_base
gdt_base:
gdt:
        .quad 0
        .quad 0x00af9b000000ffff        // CODE64, accessed
        .quad 0x00cf93000000ffff        // DATA, accessed
        .quad 0x00cf9b000000ffff        // 0x18: 32-bit code, for secondary CPUs on their way
gdt_end:
        .globl gdt_pointer
gdt_pointer:
        .word gdt_end - gdt - 1
        .quad gdt

// Identity mapping of the first 8 GiB, by 2 MiB pages: made by the assembler, costs no instruction.
        .balign 4096
        .globl pml4
pml4:
        .quad pdpt + PRESENT_WRITABLE
        .fill 511, 8, 0
pdpt:
        .set gib, 0
        .rept 8
        .quad directories + gib * 4096 + PRESENT_WRITABLE
        .set gib, gib + 1
        .endr
        .fill 504, 8, 0
directories:
        .set page, 0
        .rept 8 * 512
        .quad page * 0x200000 + LARGE + PRESENT_WRITABLE
        .set page, page + 1
        .endr

        .bss
        .balign 16
        .skip 16384
boot_stack_top:

        .section .note.GNU-stack, "", @progbits
