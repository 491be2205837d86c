#: image tool {"Cmd": ["old"], "Entrypoint": ["old"]}
FROM tool AS kept
FROM tool AS reset
ENTRYPOINT ["new"]
COPY --from=kept / /kept
FROM tool
CMD serve now
ENTRYPOINT ["/bin/app", "--x"]
COPY --from=reset / /reset
