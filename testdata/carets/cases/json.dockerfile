FROM scratch
SHELL ["a", "b]
CMD ["x", y]
ENTRYPOINT [ "a", ]
