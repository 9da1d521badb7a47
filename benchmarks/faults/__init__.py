"""The labelled suite: experiments on MNIST, healthy ones and ones that are faulty in a known way.

`cases` says which, `truth` says independently of any rule whether the label holds, `runs` trains them once and keeps
what was measured, `tables` lets the rules and the peers' presets judge it all.
"""
